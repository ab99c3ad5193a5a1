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
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file says of itself."""

    precision: str  # int8 if any operator is quantised, else the lowest of its weights
    inputs: tuple[str, ...]  # in the order of the graph, weights left out
    outputs: tuple[str, ...]
    external: tuple[str, ...]  # files beside the model that hold weights


@dataclass(frozen=True)
class OnnxValue:
    """An input or output as the file declares it."""

    name: str
    dtype: str  # as numpy names it; "": not said
    shape: tuple[int | str, ...] | None  # "": open and without a name; None: not said


def onnx_signature(model: bytes) -> tuple[tuple[OnnxValue, ...], tuple[OnnxValue, ...]]:
    """Inputs (weights left out) and outputs of an ONNX file, in the order of the graph.

    Raises:
        ValueError: the bytes are no ONNX model, or a value is no tensor.
    """
    graph = _only_graph(memoryview(model))
    weights = {_name(value, 8) for _, value in _messages(graph, (5,))}
    inputs = [
        _value(value) for _, value in _messages(graph, (11,)) if _name(value, 1) not in weights
    ]
    return tuple(inputs), tuple(_value(value) for _, value in _messages(graph, (12,)))


def describe_onnx(model: bytes) -> OnnxFacts:
    """Read names, precision and the files of outside weights.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    found = _Found()
    view = memoryview(model)
    graph = _only_graph(view)
    _graph(graph, found)
    for number, function in _fields(view):
        if number == 25 and isinstance(function, memoryview):
            for part, node in _fields(function):
                if part == 7 and isinstance(node, memoryview):
                    _node(node, found)
    names = [(number, _name(value, 1)) for number, value in _messages(graph, (11, 12))]
    weights = {_name(value, 8) for _, value in _messages(graph, (5,))}
    return OnnxFacts(
        precision=found.precision(),
        inputs=tuple(name for number, name in names if number == 11 and name not in weights),
        outputs=tuple(name for number, name in names if number == 12),
        external=tuple(sorted(found.external)),
    )


def _only_graph(model: memoryview) -> memoryview:
    graphs = [value for number, value in _fields(model) if number == 7]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise ValueError("the model is not an ONNX file; it has no graph")
    return graphs[0]


def _value(value: memoryview) -> OnnxValue:
    """ValueInfoProto: name 1, type 2; TypeProto: tensor 1; its element type 1, shape 2."""
    name, dtype = _name(value, 1), ""
    shape: tuple[int | str, ...] | None = None
    for _, kind in _messages(value, (2,)):
        for number, content in _messages(kind, (1, 4, 5, 8, 9)):
            if number != 1:
                raise ValueError(
                    f"{name!r} is a sequence, map or sparse tensor; export the model with tensors "
                    "at its ends (scikit-learn: zipmap=False)"
                )
            for part, found in _fields(content):
                if part == 1 and isinstance(found, int):
                    dtype = DTYPES.get(found, f"type {found}") if found else ""
                elif part == 2 and isinstance(found, memoryview):
                    shape = tuple(_axis(axis) for _, axis in _messages(found, (1,)))
    return OnnxValue(name, dtype, shape)


def _axis(axis: memoryview) -> int | str:
    """TensorShapeProto.Dimension: size 1 or name 2."""
    for number, value in _fields(axis):
        # -1 is how some writers say that an axis is open.
        if number == 1 and isinstance(value, int) and value < 1 << 63:
            return value
    return _name(axis, 2)


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
