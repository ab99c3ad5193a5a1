"""A run's model made smaller, once: the measured table must not change from export to export."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from core.compress.config import CompressConfig
from core.convert.source import Source
from core.convert.target import Options
from core.kit import Exportable
from edge.target import Tolerance

PACKAGES = ("onnx", "onnxruntime")
MODEL, REPORT = "model.onnx", "compression.json"
REASON = (
    "8-bit steps round differently by runtime and batch: two roundings may each lie as far from "
    "float32 as the 8-bit model does on the calibration samples and drawn ones"
)
NUM_DRAWS = 4


@dataclass(frozen=True)
class Compressed:
    """A smaller model, ready to convert."""

    onnx: Path
    source: Source
    options: Options  # precision and tolerance of its targets
    report: Path  # the before/after table


def compress(cfg: CompressConfig, model: Exportable, onnx: Path, cache: Path) -> Compressed:
    """Quantise a run's model, or take what an earlier export made of the same.

    Args:
        cfg: what to do.
        model: its calibration samples and metric.
        onnx: its portable file in float32.
        cache: the result is kept in `<cache>/<key of model, settings and versions>`.

    Raises:
        ValueError: pruning is asked for, which needs training, or nothing fits the loss budget.
    """
    if cfg.is_pruned:
        raise ValueError(
            f"compress.is_pruned=true is not for a finished run of {model.source.name!r}: what is "
            "left has to be trained on; use core.compress.prune with its task, or compress=int8"
        )
    weights = [*cfg.quantize.float_weights, *model.float_weights]
    cfg = replace(cfg, quantize=replace(cfg.quantize, float_weights=weights))
    facts = {"compress": asdict(cfg), "versions": {name: version(name) for name in PACKAGES}}
    text = json.dumps(facts, sort_keys=True).encode()
    key = hashlib.sha256(text + onnx.read_bytes()).hexdigest()[:16]
    folder = cache / key
    if not folder.is_dir():
        _make(cfg, model, onnx, folder)
    small = folder / MODEL
    source = Source(
        name=model.source.name,
        origin=f"{model.source.origin}, in 8 bits",
        module=None,
        example=model.source.example,
        output_names=model.source.output_names,
        axes=model.source.axes,
        onnx=small.read_bytes(),
        draw=model.source.draw,
    )
    tolerance = _tolerance(model, onnx, small)
    options = Options(
        precision="int8", calibration=model.calibration, values={"tolerance": tolerance}
    )
    return Compressed(small, source, options, folder / REPORT)


def _make(cfg: CompressConfig, model: Exportable, onnx: Path, folder: Path) -> None:
    """Quantise into a folder that appears whole or not at all."""
    from core.compress.quantize import quantize

    part = folder.with_name(f".part-{folder.name}")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    metric = model.metric
    done = quantize(
        onnx,
        part / MODEL,
        model.calibration,
        metric=(lambda predict: metric(predict)[model.metric_name]) if metric else None,
        max_loss=cfg.max_loss if metric else None,
        cfg=cfg.quantize,
    )
    report: dict[str, Any] = {"metric": model.metric_name if metric else None, **done.to_json()}
    (part / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    part.rename(folder)


def _tolerance(model: Exportable, onnx: Path, small: Path) -> Tolerance:
    from core.compress.measure import predictor

    exact, rounded = predictor(onnx), predictor(small)
    axes = {axis.name: axis for dims in model.source.axes.values() for axis in dims.values()}
    highest = {name: axis.sizes()[-1] for name, axis in axes.items()}
    drawn = [model.source.inputs(highest, seed) for seed in range(NUM_DRAWS)]
    error = 0.0
    for inputs in (model.calibration, *drawn):
        before, after = exact(inputs), rounded(inputs)
        error = max(error, *(float(np.abs(after[name] - before[name]).max()) for name in before))
    return Tolerance(float(f"{2 * error:.3g}"), 0.0, REASON)
