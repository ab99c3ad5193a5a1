"""One model of the zoo to one target, with the comparison; runs in a process of its own."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.zoo.models import build
from core.convert.export import ExportError, export_onnx
from core.convert.parity import Parity, compare
from core.convert.source import Source
from core.convert.target import Options, converter_of
from core.train.run import write_atomic
from edge.target import Tolerance

PORTABLE = "portable-onnx"
# Stricter than a conversion's usual one, which allows more where values are large.
STRICT = Tolerance(1e-4, 0.0, "the zoo's goal: 1e-4 absolute in float32")


def convert(model: str, targets: list[str], folder: Path) -> None:
    """Convert a model to targets, one after the other.

    Args:
        model: a name of MODELS.
        targets: ids; each leaves `folder/<id>.json` as soon as it is done.
        folder: of the model; keeps the exported file for the next call.
    """
    source = build(model)
    for target in targets:
        # Read by the parent when this process dies: it was this one.
        (folder / "current").write_text(target)
        started = time.perf_counter()
        row = {"model": model, "target": target, **_convert(source, target, folder)}
        row["seconds"] = round(time.perf_counter() - started, 1)
        write_atomic(folder / f"{target}.json", json.dumps(row, indent=1))


def _convert(source: Source, target: str, folder: Path) -> dict[str, Any]:
    onnx = folder / "portable.onnx"
    try:
        trail = _export(source, onnx)
    except ExportError as error:
        return {"outcome": "no export", "reason": str(error)}
    row: dict[str, Any] = {"export": trail}
    converter, made = converter_of(target), folder / target
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    try:
        artifact = converter.convert(source, onnx, made, target, Options())
        notes = {"notes": list(artifact.notes), "precision": artifact.target.precision}
        row |= notes | {"state": artifact.target.state}
        row["bytes"] = sum((made / name).stat().st_size for name in artifact.files)
        runner = converter.open(artifact)
        if runner is None:
            return row | {"outcome": artifact.target.state, "reason": ""}
        tolerance = STRICT if target == PORTABLE else artifact.target.tolerance
        return row | _summary(compare(source, runner, tolerance))
    except Exception as error:  # noqa: BLE001 (a converter may raise what it likes: it is the result)
        lines = str(error).strip().splitlines() or ["no message"]
        return row | {"outcome": "refused", "reason": f"{type(error).__name__}: {lines[0][:500]}"}
    finally:
        # Forty models for a dozen targets fill a disk.
        shutil.rmtree(made, ignore_errors=True)


def _export(source: Source, onnx: Path) -> dict[str, Any]:
    trail = onnx.with_suffix(".trail.json")
    if not (onnx.exists() and trail.exists()):
        done = export_onnx(source, onnx)
        write_atomic(trail, json.dumps(done.to_json() | {"used": done.used}))
    content: dict[str, Any] = json.loads(trail.read_text())
    return content


def _summary(parity: Parity) -> dict[str, Any]:
    outputs = [output for case in parity.cases for output in case.outputs]
    return {
        "outcome": "equal" if parity.passed else "differs",
        "reason": "; ".join(parity.problems[:2]),
        "max_absolute": max((output.max_absolute for output in outputs), default=None),
        "num_shapes": len({tuple(case.case.sizes.items()) for case in parity.cases}),
        "num_comparisons": len(parity.cases),
        "axes": dict(parity.axes),
        "tolerance": asdict(parity.tolerance),
        "facts": dict(parity.facts),
    }
