"""One model in 8-bit integers, with any of its layers left in float: ONNX Runtime's quantiser.

Convolutions and matrix products with constant weights become u8 activations times s8 weights, one
scale per output channel: the pair that has fast kernels on x86, also in three dimensions. What
lies between two quantised layers (activations, pooling, residual sums) stays in 8 bits as well.
ONNX Runtime has no static LSTM, so that an LSTM's weights become 8-bit and its inputs are scaled
as they come. GRU and RNN stay in float.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
    quantize_dynamic,
    quantize_static,
    save_tensors_data,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from core.compress.config import QuantizeConfig

Mode = Literal["static", "dynamic"]

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
DYNAMIC = ("MatMul", "LSTM")
# Stay in 8 bits when everything they read is in 8 bits already.
CARRIERS = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool",
    "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip
# QDQ with one scale per channel came with 13.
LOWEST_OPSET = 13
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class Quantizer:
    """Writes 8-bit variants of one model; the calibration runs once.

    Args:
        model: the float32 model.
        batches: calibration inputs by name, a dict per run.
        cfg: how ranges are taken.
        folder: an empty folder for intermediate files.

    Raises:
        ValueError: the model has nothing that could be quantised.
    """

    def __init__(
        self,
        model: Path,
        batches: Sequence[dict[str, np.ndarray]],
        cfg: QuantizeConfig,
        folder: Path,
    ) -> None:
        self._batches, self._cfg, self._folder = batches, cfg, folder
        self.prepared = folder / "prepared.onnx"
        self.notes = _prepare(model, self.prepared, folder)
        self._graph = load_graph(self.prepared)
        self._constants = _constants(self._graph)
        self.layers = self._layers()
        if not self.layers:
            raise ValueError(
                f"{model.name} has no layer with constant weights among {', '.join(PRODUCTS)} "
                "and LSTM; there is nothing to quantise"
            )
        first = self._graph.input[0].type.tensor_type.shape.dim
        self.has_free_batch = len(first) > 0 and not first[0].HasField("dim_value")

    def build(self, float_layers: Collection[str], out: Path, mode: Mode = "static") -> Path:
        """Write the model with all layers but some in 8 bits.

        Args:
            float_layers: names of layers that stay in float32.
            out: the file to write.
            mode: static takes the scales of products from the calibration, dynamic from each
                input; LSTMs are dynamic in both.
        """
        layers = [name for name in self.layers if name not in set(float_layers)]
        recurrent = [name for name in layers if self.layers[name] == "LSTM"]
        products = [name for name in layers if self.layers[name] != "LSTM"]
        between = self._folder / "between.onnx"
        current = self.prepared
        with _quiet():
            if mode == "static" and products:
                self._build_static(products, between)
                current = between
            dynamic = recurrent
            if mode == "dynamic":
                dynamic = [*recurrent, *(name for name in products if self._is_dynamic(name))]
            if dynamic:
                quantize_dynamic(
                    current, out, op_types_to_quantize=list(DYNAMIC), per_channel=True,
                    weight_type=QuantType.QInt8, nodes_to_quantize=self._renamed(dynamic),
                    extra_options={"MatMulConstBOnly": True},
                )  # fmt: skip
                current = out
        content = onnx.load(current)
        del content.metadata_props[:]
        onnx.save(content, out)
        return out

    def _build_static(self, products: list[str], out: Path) -> None:
        options = {
            "MatMulConstBOnly": True,
            # A product's float output costs nothing; what reads it in 8 bits scales it itself.
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
        }
        quantize_static(
            self.prepared, out, quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*PRODUCTS, *CARRIERS], per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_quantize=[*products, *self._carriers(set(products))], extra_options=options,
            calibrate_method=METHODS[self._cfg.calibration], calibration_cache_path=self._ranges(),
        )  # fmt: skip

    def _ranges(self) -> Path:
        """The ranges of the tensors that may ever be in 8 bits; measured at the first call."""
        path = self._folder / "ranges.json"
        if path.exists():
            return path
        products = {name for name, kind in self.layers.items() if kind in PRODUCTS}
        wanted = products | set(self._carriers(products))
        nodes = [node for node in self._graph.node if node.name in wanted]
        calibrator = create_calibrator(
            self.prepared,
            sorted({node.op_type for node in nodes}),
            str(self._folder / "calibration.onnx"),
            METHODS[self._cfg.calibration],
            extra_options={"percentile": self._cfg.percentile},
        )
        calibrator.collect_data(_Reader(self._batches))
        found = calibrator.compute_data()
        touched = {name for node in nodes for name in (*node.input, *node.output)}
        # The quantiser scales every range it is given, also those of tensors that hold NaN.
        for name in set(found.keys()) - touched:
            del found.data[name]
        save_tensors_data(found, path)
        return path

    def layers_of_weights(self, beginnings: Collection[str]) -> tuple[str, ...]:
        """Names of layers whose weight's name begins so, in the order of the graph."""
        return tuple(
            node.name
            for node in self._graph.node
            if node.name in self.layers and begins_so(node.input[1], beginnings)
        )

    def _layers(self) -> dict[str, str]:
        """Name -> operator of what can be quantised, in the order of the graph."""
        kinds = PRODUCTS if self._cfg.is_portable else (*PRODUCTS, "LSTM")
        return {
            node.name: node.op_type
            for node in self._graph.node
            if node.op_type in kinds and node.input[1] in self._constants
        }

    def _carriers(self, quantized: set[str]) -> list[str]:
        # Only convolutions: a product's output stays in float.
        convolutions = {name for name in quantized if self.layers[name].startswith("Conv")}
        tensors: set[str] = set()
        found = []
        for node in self._graph.node:
            if node.name in convolutions:
                tensors.update(node.output)
            elif node.op_type in CARRIERS:
                data = node.input if node.op_type in ("Add", "Mul", "Concat") else node.input[:1]
                if all(name in tensors for name in data):
                    tensors.update(node.output)
                    found.append(node.name)
        return found

    def _is_dynamic(self, name: str) -> bool:
        return self.layers[name] in ("MatMul", "Gemm")

    def _renamed(self, names: Collection[str]) -> list[str]:
        # The dynamic quantiser splits a Gemm into a MatMul of this name and an Add.
        return [f"{n}_MatMul" if self.layers[n] == "Gemm" else n for n in names]


def begins_so(weight: str, beginnings: Collection[str]) -> bool:
    """Whether a weight's name, as the run's own module has it, begins like one of these."""
    # An exporter that wrapped the module says so in front.
    return weight.removeprefix("module.").startswith(tuple(beginnings))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[dict[str, np.ndarray]]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def _prepare(model: Path, out: Path, folder: Path) -> tuple[str, ...]:
    """Fold constants, infer shapes, name every node, raise an old opset; gives notes."""
    content = onnx.load(model)
    notes = []
    opset = next(entry.version for entry in content.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < LOWEST_OPSET:
        content = onnx.version_converter.convert_version(content, LOWEST_OPSET)
        notes.append(f"opset {opset} raised to {LOWEST_OPSET}, the first with scales per channel")
    named, out = (folder / "named.onnx").resolve(), out.resolve()
    onnx.save(content, named)
    # What it could not finish, shape inference leaves in the current folder.
    with _quiet(), chdir(folder):
        try:
            quant_pre_process(named, out)
        except Exception as error:  # noqa: BLE001 (a bare Exception is what its own checks raise)
            notes.append(f"without symbolic shapes, which could not be inferred: {error}")
            quant_pre_process(named, out, skip_symbolic_shape=True)
    content = onnx.load(out)
    taken: set[str] = set()
    for number, node in enumerate(content.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
    onnx.save(content, out)
    return tuple(notes)


def load_graph(model: Path) -> onnx.GraphProto:
    """The graph of a file, with its weights."""
    return onnx.load(model).graph


def _constants(graph: onnx.GraphProto) -> set[str]:
    made = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    return made | {tensor.name for tensor in graph.initializer}


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser gives its advice through the root logger and through warnings."""
    logger = logging.getLogger()
    previous = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(previous)
