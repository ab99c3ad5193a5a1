"""The models that are served, made at run time: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUM_FEATURES = 32
HIDDEN = (64, 64)
NUM_CLASSES = 2
IMAGE_PX = 224
CONV_LAYERS, CONV_CHANNELS, CONV_SIZE_PX = 12, 64, 32


def cached(folder: Path, name: str, build: Callable[[Path], None]) -> Path:
    """A model's file; built if it is not there yet, so that a second run begins at once."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.onnx")
        build(part)
        part.replace(path)
    return path


def _save(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], path: Path,
          inputs: list[object], outputs: list[object]) -> None:  # fmt: skip
    declared = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in
        (inputs, outputs)
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "graph", *declared, weights)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def build_tabular(path: Path) -> None:
    """x (batch, 32) -> 64 -> 64 -> probabilities (batch, 2)."""
    rng = np.random.default_rng(0)
    widths = (NUM_FEATURES, *HIDDEN, NUM_CLASSES)
    nodes, weights, read = [], [], "x"
    for at, (rows, columns) in enumerate(pairwise(widths)):
        weight = (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        bias = rng.standard_normal(columns).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"w{at}"),
                    numpy_helper.from_array(bias, f"b{at}")]  # fmt: skip
        nodes.append(helper.make_node("Gemm", [read, f"w{at}", f"b{at}"], [f"g{at}"]))
        read = f"g{at}"
        if at < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [read], [f"r{at}"]))
            read = f"r{at}"
    nodes.append(helper.make_node("Softmax", [read], ["probabilities"], axis=1))
    _save(nodes, weights, path, ["x", ["batch", NUM_FEATURES]],
          ["probabilities", ["batch", NUM_CLASSES]])  # fmt: skip


def build_convolutions(path: Path) -> None:
    """x (batch, 32) -> 12 convolutions of 64 channels at 32 x 32 px -> y (batch, 64).

    Some 10 ms a row on one core, and a batch costs as much as its rows by themselves: what a
    service does under overload is then not hidden by batching.
    """
    rng = np.random.default_rng(0)
    grow = rng.standard_normal((NUM_FEATURES, CONV_CHANNELS)).astype(np.float32)
    scales = np.array([1, 1, CONV_SIZE_PX, CONV_SIZE_PX], np.float32)
    weights = [
        numpy_helper.from_array(grow, "grow"),
        numpy_helper.from_array(np.array([0, CONV_CHANNELS, 1, 1]), "shape"),
        numpy_helper.from_array(scales, "scales"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "grow"], ["grown"]),
        helper.make_node("Reshape", ["grown", "shape"], ["pixel"]),
        helper.make_node("Resize", ["pixel", "", "scales"], ["r0"], mode="nearest"),
    ]
    fan_in = CONV_CHANNELS * 9
    for at in range(CONV_LAYERS):
        weight = rng.standard_normal((CONV_CHANNELS, CONV_CHANNELS, 3, 3)) * np.sqrt(2 / fan_in)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"c{at}"))
        nodes.append(helper.make_node("Conv", [f"r{at}", f"c{at}"], [f"y{at}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"y{at}"], [f"r{at + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"r{CONV_LAYERS}"], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"]))
    _save(nodes, weights, path, ["x", ["batch", NUM_FEATURES]],
          ["y", ["batch", CONV_CHANNELS]])  # fmt: skip


def build_resnet50(path: Path) -> None:
    """224 x 224 px -> logits (batch, 1000); random weights, float32."""
    from benchmarks.zoo.models import classifier
    from core.convert.export import export_onnx

    export_onnx(classifier("resnet50", IMAGE_PX), path)


def build_resnet50_int8(path: Path) -> None:
    """The same in 8-bit integers with static scales (QDQ)."""
    from core.compress.config import QuantizeConfig
    from core.compress.quantize import quantize

    float32 = cached(path.parent, "resnet50", build_resnet50)
    (given,) = onnx.load(float32).graph.input
    rng = np.random.default_rng(0)
    images = rng.standard_normal((16, 3, IMAGE_PX, IMAGE_PX), dtype=np.float32)
    cfg = QuantizeConfig(method="static", calibration_batch=4, latency_runs=1)
    quantize(float32, path, {given.name: images}, cfg=cfg)
