"""What must be known of an ONNX file before a runtime gets it; reads the protobuf wire format.

Runtimes do not say which precision a graph holds, and look for outside weights in the working
folder. Field numbers: onnx/onnx.proto, which never renumbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Of ONNX and of ONNX Runtime's own operators.
QUANTISED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "ConvInteger", "MatMulInteger"),
    *("QLinear", "QGemm", "QAttention", "QOrdered", "QMoE", "QEmbed"),
    *("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"),
)
WEIGHT_PRECISION = {16: "bfloat16", 10: "float16"}  # TensorProto.DataType


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file says of itself."""

    precision: str  # int8 if any operator is quantised, else the lowest of its weights
    inputs: tuple[str, ...]  # in the order of the graph, weights left out
    outputs: tuple[str, ...]
    external: tuple[str, ...]  # files beside the model that hold weights


def describe_onnx(model: bytes) -> OnnxFacts:
    """Read names, precision and the files of outside weights.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    found = _Found()
    view = memoryview(model)
    graphs = [value for number, value in _fields(view) if number == 7]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise ValueError("the model is not an ONNX file; it has no graph")
    _graph(graphs[0], found)
    for number, function in _fields(view):
        if number == 25 and isinstance(function, memoryview):
            for part, node in _fields(function):
                if part == 7 and isinstance(node, memoryview):
                    _node(node, found)
    names = [(number, _name(value, 1)) for number, value in _messages(graphs[0], (11, 12))]
    weights = {_name(value, 8) for _, value in _messages(graphs[0], (5,))}
    return OnnxFacts(
        precision=found.precision(),
        inputs=tuple(name for number, name in names if number == 11 and name not in weights),
        outputs=tuple(name for number, name in names if number == 12),
        external=tuple(sorted(found.external)),
    )


class _Found:
    def __init__(self) -> None:
        self.is_quantised = False
        self.types: set[int] = set()
        self.external: set[str] = set()

    def precision(self) -> str:
        if self.is_quantised:
            return "int8"
        return next(
            (name for code, name in WEIGHT_PRECISION.items() if code in self.types), "float32"
        )


def _graph(graph: memoryview, found: _Found) -> None:
    for number, value in _messages(graph, (1, 5)):
        if number == 1:
            _node(value, found)
        else:
            _tensor(value, found)


def _node(node: memoryview, found: _Found) -> None:
    operator = _name(node, 4)
    if operator.startswith(QUANTISED):
        found.is_quantised = True
    for _, attribute in _messages(node, (5,)):
        for number, value in _messages(attribute, (5, 6, 10, 11)):
            if number in (5, 10):
                _tensor(value, found)
            else:
                _graph(value, found)


def _tensor(tensor: memoryview, found: _Found) -> None:
    for number, value in _fields(tensor):
        if number == 2 and isinstance(value, int):
            found.types.add(value)
        elif number == 13 and isinstance(value, memoryview) and _name(value, 1) == "location":
            found.external.add(_name(value, 2))


def _messages(message: memoryview, numbers: tuple[int, ...]) -> Iterator[tuple[int, memoryview]]:
    for number, value in _fields(message):
        if number in numbers and isinstance(value, memoryview):
            yield number, value


def _name(message: memoryview, field: int) -> str:
    values = [bytes(value) for _, value in _messages(message, (field,))]
    return values[-1].decode("utf-8", errors="replace") if values else ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        value: int | memoryview
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            size, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _varint(message, at)
            if at + size > end:
                raise ValueError("the model is not an ONNX file, or was cut off; copy it again")
            value, at = message[at : at + size], at + size
        else:
            raise ValueError("the model is not an ONNX file; write it with onnx.save")
        yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("the model is not an ONNX file, or was cut off; copy it again")
