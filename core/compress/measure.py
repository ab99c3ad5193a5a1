"""What a model costs: bytes, operations, and latency on this machine; the before/after table."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Arrays = Mapping[str, np.ndarray]
Predict = Callable[[Arrays], Mapping[str, np.ndarray]]
Metric = Callable[[Predict], float]  # higher is better

# What the trace appends to a node's name.
TRACED = "_kernel_time"
RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")


@dataclass(frozen=True)
class Row:
    """One model in the before/after table."""

    name: str
    metric: float | None
    bytes: int
    flops: int  # of one sample; two for each multiply-add of convolutions and matrix products
    latency_ms: Mapping[str, float]  # batch -> median of one thread on this CPU


@dataclass(frozen=True)
class Compression:
    """A compressed model and what it cost."""

    path: Path
    method: str
    float_nodes: tuple[str, ...]  # layers that stayed in float32, or kept their channels
    table: tuple[Row, ...]  # before, after
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a report; the path by its file name."""
        return {**asdict(self), "path": self.path.name}


def open_session(
    model: Path | bytes, *, threads: int = 1, is_optimized: bool = True
) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def predictor(model: Path | bytes, *, threads: int = 1) -> Predict:
    """A function from inputs by name to outputs by name; it ignores inputs the model has not."""
    session = open_session(model, threads=threads)
    inputs = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]

    def predict(arrays: Arrays) -> Mapping[str, np.ndarray]:
        values = session.run(None, {name: arrays[name] for name in inputs})
        return dict(zip(outputs, values, strict=True))

    return predict


def batches_of(model: Path, samples: Arrays, size: int) -> list[dict[str, np.ndarray]]:
    """The samples cut along their first axis, for the inputs that the model has.

    Args:
        model: its first axis decides the batch where it is fixed.
        samples: input -> (n, ...).
        size: wanted batch; the last one may be smaller unless the model's batch is fixed.

    Raises:
        ValueError: an input has no samples, the inputs differ in their number, or there are
            fewer than one batch.
    """
    inputs = open_session(model).get_inputs()
    missing = [node.name for node in inputs if node.name not in samples]
    if missing:
        raise ValueError(f"calibration has no samples of {', '.join(missing)}; add them")
    counts = {node.name: len(samples[node.name]) for node in inputs}
    if len(set(counts.values())) != 1:
        raise ValueError(f"calibration has unequal numbers of samples {counts}; give n of each")
    count = next(iter(counts.values()))
    fixed = {node.shape[0] for node in inputs if node.shape and isinstance(node.shape[0], int)}
    if fixed:
        size = max(fixed)
        count -= count % size
    if count == 0:
        raise ValueError(
            f"calibration has fewer samples than the model's batch of {size}; add some"
        )
    return [
        {node.name: samples[node.name][start : min(start + size, count)] for node in inputs}
        for start in range(0, count, size)
    ]


def count_flops(model: Path, inputs: Arrays) -> int:
    """Operations of one run, two for each multiply-add of convolutions and matrix products."""
    return sum(count_layer_flops(model, inputs).values())


def count_layer_flops(model: Path, inputs: Arrays) -> dict[str, int]:
    """Operations of one run by node, two for each multiply-add.

    The model runs once, unoptimised, and its shapes are read from the runtime's own trace, so
    that loops and data-dependent shapes count as they are. 8-bit operations count like others.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "trace"))
        options.log_severity_level = 3
        # A packed weight vanishes from the trace.
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {node.name: inputs[node.name] for node in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: Counter[str] = Counter()
    for event in events:
        if event["name"].endswith(TRACED):
            found[event["name"].removesuffix(TRACED)] += _flops(event["args"])
    return dict(found)


def _flops(node: Mapping[str, Any]) -> int:
    kind = node["op_name"]
    shapes: list[list[int]] = [next(iter(v.values())) for v in node["input_type_shape"]]
    outputs: list[list[int]] = [next(iter(v.values())) for v in node["output_type_shape"]]
    if kind in ("Conv", "ConvInteger"):
        return 2 * math.prod(outputs[0]) * math.prod(shapes[1][1:])
    if kind == "ConvTranspose":
        return 2 * math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if kind in ("MatMul", "MatMulInteger"):
        return 2 * math.prod(outputs[0]) * shapes[0][-1]
    if kind == "Gemm":
        # Either operand may be transposed: the inner size is what the output lacks.
        inner = math.prod(shapes[0]) // outputs[0][0]
        return 2 * math.prod(outputs[0]) * inner
    if kind in RECURRENT:
        steps, batch = shapes[0][:2]
        return 2 * steps * batch * (math.prod(shapes[1]) + math.prod(shapes[2]))
    return 0


def latencies_ms(
    models: Mapping[str, Predict], inputs: Arrays, runs: int
) -> dict[str, list[float]]:
    """Latencies of several models on the same inputs, in turns, so that other load hits all alike.

    Returns:
        for each model the sorted latencies of `runs` runs, in milliseconds.
    """
    found: dict[str, list[float]] = {name: [] for name in models}
    for predict in models.values():
        predict(inputs)
    for _ in range(runs):
        for name, predict in models.items():
            start = time.perf_counter()
            predict(inputs)
            found[name].append(1e3 * (time.perf_counter() - start))
    return {name: sorted(values) for name, values in found.items()}


def compare_models(
    models: Mapping[str, Path],
    samples: Arrays,
    metrics: Mapping[str, float | None],
    *,
    batches: Sequence[int] = (1,),
    runs: int = 30,
) -> tuple[Row, ...]:
    """The before/after table.

    Args:
        models: ONNX files by the name of their row, with the same inputs.
        samples: input -> (n, ...), n at least 1; repeated where a batch is larger.
        metrics: of each model.
        batches: batches whose latency is measured; a model's fixed batch replaces them.
        runs: of each model and batch.
    """
    predicts = {name: predictor(path) for name, path in models.items()}
    latency: dict[str, dict[str, float]] = {name: {} for name in models}
    first = next(iter(models.values()))
    for batch in batches:
        repeats = -(-batch // len(next(iter(samples.values()))))
        many = {name: np.concatenate([value] * repeats) for name, value in samples.items()}
        inputs = batches_of(first, many, batch)[0]
        size = len(next(iter(inputs.values())))
        for name, values in latencies_ms(predicts, inputs, runs).items():
            latency[name][str(size)] = round(statistics.median(values), 4)
    one = batches_of(first, samples, 1)[0]
    size = len(next(iter(one.values())))
    return tuple(
        Row(
            name=name,
            metric=metrics[name],
            bytes=path.stat().st_size,
            flops=count_flops(path, one) // size,
            latency_ms=latency[name],
        )
        for name, path in models.items()
    )
