"""The export verb: the bundle of `core.convert`, released only if all runtimes judge alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from core.convert.config import ExportConfig
from core.convert.job import ExportError, export_run
from core.train.run import write_atomic
from kits.defect.kit import KIT
from kits.defect.trained import load_run_network, read_facts
from kits.defect.verdicts import Verdicts, compare_bundle, read_frozen

VERDICTS_FILE, BUNDLE = "verdicts.json", "defect.ebundle"


def export_checked(cfg: ExportConfig) -> Path:
    """Make `<output>/defect.ebundle` with its reports.

    Returns:
        the bundle.
    Raises:
        ExportError: a target computes something else, or judges an image differently; an earlier
            export stays where it is then.
    """
    run = Path(cfg.run)
    facts, frozen = read_facts(run), read_frozen(run)
    output = Path(cfg.output) if cfg.output else run / "export"
    candidate = output.with_name(f"{output.name}-candidate")
    shutil.rmtree(candidate, ignore_errors=True)
    try:
        made = export_run(replace(cfg, output=str(candidate)), KIT)
        # Eight bits are another model: there the targets are compared with each other.
        reference = None if cfg.compress.is_quantized else load_run_network(run)
        found = compare_bundle(made.bundle, made.tested, frozen, facts, reference)
        rows = [one.to_json() for one in found]
        write_atomic(candidate / VERDICTS_FILE, json.dumps(rows, indent=1) + "\n")
        refuse(found)
        if output.exists():
            shutil.rmtree(output)
        candidate.rename(output)
    finally:
        shutil.rmtree(candidate, ignore_errors=True)
    print(f"verdicts: {len(frozen)} images alike on {', '.join(one.target for one in found)}")
    print(f"released: {output / BUNDLE}")
    return output / BUNDLE


def refuse(found: list[Verdicts]) -> None:
    """Stop at the first target that judges differently.

    Raises:
        ExportError: names the target and the images.
    """
    for one in found:
        if one.differing:
            raise ExportError(
                f"target {one.target!r} judges {len(one.differing)} of {one.images} frozen images "
                f"differently (numbers {list(one.differing[:5])}); nothing was released"
            )
