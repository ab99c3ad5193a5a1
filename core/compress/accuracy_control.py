"""NNCF's accuracy-aware quantisation behind the same call; NNCF stays silent about it.

NNCF reports every call to a server of its makers through the package `openvino_telemetry` unless
that cannot be imported. It is made unimportable before NNCF is imported for the first time, which
needs no consent file in anybody's home folder and no environment variable; what was loaded before
is asked to be silent, and a NNCF that could report is refused.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnx

from core.compress.config import QuantizeConfig
from core.compress.integers import begins_so
from core.compress.measure import Compression, Metric, batches_of, compare_models, predictor
from core.compress.sensitivity import relative_error

REPORTER = "openvino_telemetry"


def import_nncf() -> ModuleType:
    """Import NNCF such that it cannot report anything.

    Raises:
        ModuleNotFoundError: NNCF is not installed.
        RuntimeError: NNCF was imported elsewhere before, with its reporter.
    """
    # None makes every later import of the package fail, which NNCF and OpenVINO expect may happen.
    sys.modules.setdefault(REPORTER, None)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
            import nncf.telemetry.wrapper as wrapper
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"{missing.name} is not installed; pip install '.[convert]'", name=missing.name
        ) from missing
    if not isinstance(wrapper.telemetry, MagicMock):
        raise RuntimeError(
            f"nncf was imported with {REPORTER} and would report this call; import "
            "core.compress before nncf"
        )
    nncf.set_log_level(logging.ERROR)
    return nncf  # type: ignore[no-any-return]


def quantize_with_nncf(
    model: Path,
    out: Path,
    calibration: Mapping[str, np.ndarray],
    *,
    metric: Metric | None,
    max_loss: float | None,
    cfg: QuantizeConfig,
) -> Compression:
    """See `core.compress.quantize.quantize`; without a metric the output error is held instead.

    Layers are put back to float in NNCF's own order, by their influence on the metric. LSTMs stay
    in float32: NNCF's ONNX backend does not quantise them.
    """
    nncf = import_nncf()
    batches = batches_of(model, calibration, cfg.calibration_batch)
    exact = predictor(model)
    reference = [exact(inputs) for inputs in batches]

    def value(content: bytes | Path) -> float:
        predict = predictor(content)
        return metric(predict) if metric else -relative_error(reference, predict, batches)

    before = value(model)
    content = onnx.load(model)
    data = nncf.Dataset(batches)
    settings: dict[str, Any] = {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(batches),
        "ignored_scope": nncf.IgnoredScope(names=_float_nodes(content, cfg), validate=False),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if max_loss is None:
            made = nncf.quantize(content, data, **settings)
        else:
            made = nncf.quantize_with_accuracy_control(
                content,
                data,
                data,
                # NNCF divides by the first model's metric, which may be 0.
                lambda candidate, _: 1.0 + value(candidate.SerializeToString()) - before,
                max_drop=max_loss,
                drop_type=nncf.DropType.ABSOLUTE,
                **settings,
            )
    onnx.save(made, out)
    after = value(out)
    if max_loss is not None and before - after > max_loss:
        out.unlink()
        raise ValueError(
            f"max_loss={max_loss} is not reached by nncf, which loses {before - after:.4g}; "
            "allow more loss or set quantize.method to auto"
        )
    rows = compare_models(
        {"before": model, "after": out}, calibration,
        {"before": before if metric else None, "after": after if metric else None},
        batches=cfg.latency_batches, runs=cfg.latency_runs,
    )  # fmt: skip
    return Compression(out, "nncf", _float_layers(made.graph), rows, ())


def _float_layers(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Layers with a weight that is no integer."""
    integers = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    weights = {tensor.name for tensor in graph.initializer}
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
    return tuple(
        node.name
        for node in graph.node
        if node.op_type in kinds and node.input[1] in weights and node.input[1] not in integers
    )


def _float_nodes(content: onnx.ModelProto, cfg: QuantizeConfig) -> list[str]:
    by_weight = [
        node.name
        for node in content.graph.node
        if len(node.input) > 1 and begins_so(node.input[1], cfg.float_weights)
    ]
    return [*cfg.float_nodes, *by_weight]
