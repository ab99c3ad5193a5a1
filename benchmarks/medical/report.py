"""From DICOM on disk to SEG and SR: the verb itself, from its start to its end."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.medical.study import WORK, Item, Study, fresh, print_table, spread
from benchmarks.medical.subject import Subject, drop_from_page_cache, scan_folder, subject


def measure(study: Study) -> dict[str, Any]:
    """Each form of the network in turn, round by round."""
    made = subject(study)
    scan = scan_folder(study)
    if not made.is_trained:
        study.say("a network of a few steps finds nothing that is written: give --run")
    bundles = {"bf16": made.bundle, "int8": made.int8_bundle}
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(study.rounds):
        for form, bundle in bundles.items():
            if bundle is not None:
                row = _report(study, made, bundle, scan)
                rounds.setdefault(form, []).append(row)
                study.say(f"report, {form}, round {number + 1}: {row['wall_s']:.1f} s")
    return {
        "is_trained": made.is_trained,
        "run": made.run.name,
        "no_int8": made.note,
        "scan": json.loads((scan / "grid.json").read_text()),
        "forms": {form: _summary(rows) for form, rows in rounds.items()},
    }


def _report(study: Study, made: Subject, bundle: Path, scan: Path) -> dict[str, Any]:
    """`python -m kits.medical.report`, from its start to its end, files read from the disk."""
    output = WORK / "report"
    shutil.rmtree(output, ignore_errors=True)
    drop_from_page_cache(scan / "dicom")
    done = fresh(
        ["-m", "kits.medical.report", f"scan={scan / 'dicom'}", f"run={bundle}",
         f"output={output}", f"threads={study.threads}"],
        made.home, study.threads,
    )  # fmt: skip
    written = sorted(path.name for path in output.iterdir())
    if "sr.dcm" not in written:
        raise RuntimeError(f"the report wrote {written}, no sr.dcm")
    summary = json.loads((output / "findings.json").read_text())
    inside = re.search(r"; ([\d.]+) s$", done.output, re.MULTILINE)
    assert inside, done.output
    steps = {name: float(value) for name, value in summary["seconds"].items()}
    # As precise as the printed number: a tenth.
    until_writing = steps.pop("until_writing")
    steps["measuring"] = until_writing - steps["opening"] - steps["reading"] - steps.pop("total")
    steps["writing"] = float(inside[1]) - until_writing
    steps["start"] = done.wall_s - float(inside[1])
    return {
        "wall_s": done.wall_s,
        "cpu_s": done.cpu_s,
        "rss_mib": done.rss_mib,
        "steps_s": steps,
        "nodules": len(summary["nodules"]),
        "runtime": summary["model"]["runtime"],
        "written": written,
        "written_mb": sum(path.stat().st_size for path in output.iterdir()) / 1e6,
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    last = rows[-1]
    found: dict[str, Any] = {
        key: spread([row[key] for row in rows]) for key in ("wall_s", "cpu_s", "rss_mib")
    }
    found["steps_s"] = {
        name: spread([row["steps_s"][name] for row in rows]) for name in last["steps_s"]
    }
    return {**found, **{key: last[key] for key in ("nodules", "runtime", "written", "written_mb")}}


def show(found: Mapping[str, Any]) -> None:
    """A table for each form."""
    for form, report in found["forms"].items():
        rows = [[key, *report[key].values()] for key in ("wall_s", "cpu_s", "rss_mib")]
        rows += [[name, *step.values()] for name, step in report["steps_s"].items()]
        print_table(f"DICOM on disk to SEG and SR, {form}", ("", "median", "min", "max"), rows)


ITEM = Item(measure, show)
