"""Open Inference Protocol v2 with binary tensors: bytes into arrays, arrays into bytes.

Strict, and never with an error of its own: whatever the bytes, `decode` gives a request or raises
`BadRequest` with the input, the value and the rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import orjson

from core.serve.errors import BadRequest

# The protocol's word for a type -> numpy's. BF16 comes in as the float32 of the same value.
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.float32),
}
DATATYPES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}
MAX_AXES = 16
MAX_OUTPUTS = 256
_KINDS: dict[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "u": frozenset({int}),
    "i": frozenset({int}),
    "f": frozenset({int, float}),
}
_RULES = {
    "b": "true and false",
    "u": "whole numbers from 0",
    "i": "whole numbers",
    "f": "numbers",
}


@dataclass(slots=True)
class Request:
    """A decoded request; nothing in it is compared with a model yet."""

    inputs: dict[str, np.ndarray]
    id: str = ""
    # Wanted outputs -> whether as bytes; empty: all of them, as `binary_output` says.
    outputs: dict[str, bool] = field(default_factory=dict)
    binary_output: bool = False
    timeout_s: float | None = None
    priority: int = 0


def datatype(dtype: str) -> str:
    """The protocol's word for a type as a manifest names it."""
    return "BF16" if dtype == "bfloat16" else DATATYPES[np.dtype(dtype)]


def shown(value: Any) -> str:
    """A caller's value for an error: on one line, not endless."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_json(body: bytes | memoryview) -> dict[str, Any]:
    """A request's JSON object.

    Raises:
        BadRequest: it is something else.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadRequest(f"the request is {shown(content)}, it must be a JSON object")
    return content


def decode(body: bytes, header_size: int | None = None) -> Request:
    """Read a request.

    Args:
        body: JSON; behind it the bytes of the inputs that say binary_data_size, in their order.
        header_size: bytes of JSON, from Inference-Header-Content-Length; None: all of it.
    Raises:
        BadRequest: what is wrong, with the input's name.
    """
    if header_size is None:
        content, data = parse_json(body), memoryview(b"")
    else:
        if not 0 < header_size <= len(body):
            raise BadRequest(
                f"Inference-Header-Content-Length={header_size} is not between 1 and the "
                f"{len(body)} bytes of the request"
            )
        view = memoryview(body)
        content, data = parse_json(view[:header_size]), view[header_size:]
    tensors = content.get("inputs")
    if not isinstance(tensors, list) or not tensors:
        raise BadRequest(f"inputs={shown(tensors)}, it must be a list of one input or more")
    inputs: dict[str, np.ndarray] = {}
    used = 0
    for tensor in tensors:
        name, array, size = _input(tensor, data[used:])
        if name in inputs:
            raise BadRequest(f"input {name!r} is there twice; give it once")
        inputs[name] = array
        used += size
    if used != len(data):
        raise BadRequest(
            f"{len(data)} bytes follow the JSON, the inputs' binary_data_size add up to {used}"
        )
    request = Request(inputs)
    if identity := content.get("id"):
        if not isinstance(identity, str) or len(identity) > 1000:
            raise BadRequest(f"id={shown(identity)}, it must be a text of up to 1000 characters")
        request.id = identity
    if parameters := content.get("parameters"):
        _parameters(parameters, request)
    if wanted := content.get("outputs"):
        request.outputs = _outputs(wanted, binary=request.binary_output)
    return request


def _input(tensor: Any, data: memoryview) -> tuple[str, np.ndarray, int]:
    """Name and array of an input, and how many of the bytes are its own."""
    if not isinstance(tensor, dict):
        raise BadRequest(f"inputs holds {shown(tensor)}, each must be an object with a name")
    name = tensor.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"an input has name={shown(name)}, it must be a text")
    kind = tensor.get("datatype")
    kind = kind if isinstance(kind, str) else repr(kind)
    dtype = DTYPES.get(kind)
    if dtype is None:
        raise BadRequest(
            f"input {name!r} has datatype={shown(kind)}, it must be one of {', '.join(DTYPES)}"
        )
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_AXES
        or any(type(size) is not int or size < 0 for size in shape)
    ):
        raise BadRequest(
            f"input {name!r} has shape={shown(shape)}, it must be a list of up to {MAX_AXES} "
            "whole numbers from 0"
        )
    size = None
    if parameters := tensor.get("parameters"):
        if not isinstance(parameters, dict) or "shared_memory_region" in parameters:
            raise BadRequest(
                f"input {name!r} has parameters={shown(parameters)}; only binary_data_size is "
                "taken, shared memory is not: send the data"
            )
        size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise BadRequest(f"input {name!r} has neither data nor binary_data_size; give one")
        return name, from_list(name, tensor["data"], dtype, shape), 0
    if "data" in tensor:
        raise BadRequest(f"input {name!r} has both data and binary_data_size; give one")
    if type(size) is not int or not 0 <= size <= len(data):
        raise BadRequest(
            f"input {name!r} has binary_data_size={shown(size)}, {len(data)} bytes are left in "
            "the request"
        )
    return name, _from_bytes(name, data[:size], kind, shape), size


def _from_bytes(name: str, data: memoryview, kind: str, shape: list[int]) -> np.ndarray:
    """Little-endian values, read in place where they lie at a multiple of their size."""
    dtype = np.dtype(np.uint16) if kind == "BF16" else DTYPES[kind]
    num = math.prod(shape)
    if len(data) != num * dtype.itemsize:
        raise BadRequest(
            f"input {name!r} has binary_data_size={len(data)}, {kind} of shape {shape} is "
            f"{num * dtype.itemsize} bytes"
        )
    array = np.frombuffer(data, dtype)
    if kind == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif kind == "BOOL":
        wrong = array.view(np.uint8) > 1
        if wrong.any():
            raise BadRequest(
                f"input {name!r} has the byte {array.view(np.uint8)[wrong][0]}, BOOL takes 0 and 1"
            )
    elif not array.flags.aligned:
        array = array.copy()
    return _shaped(name, array, shape)


def from_list(name: str, data: Any, dtype: np.dtype[Any], shape: Sequence[int]) -> np.ndarray:
    """An array from JSON, flat or nested as the shape says.

    Raises:
        BadRequest: a value is not of the type, or their number is not the shape's.
    """
    flat = data
    if isinstance(data, list) and data and type(data[0]) is list:
        flat = _flat(name, data, shape)
    if not isinstance(flat, list) or len(flat) != math.prod(shape):
        given = f"{len(flat)} values" if isinstance(flat, list) else shown(flat)
        raise BadRequest(
            f"input {name!r} has {given} as data, shape {list(shape)} is {math.prod(shape)} values"
        )
    return _shaped(name, flat_array(name, flat, dtype), shape)


def flat_array(name: str, flat: list[Any], dtype: np.dtype[Any]) -> np.ndarray:
    """A list of JSON values as an array with one axis; what numpy would bend is refused."""
    if not set(map(type, flat)) <= _KINDS[dtype.kind]:
        value = next(value for value in flat if type(value) not in _KINDS[dtype.kind])
        raise BadRequest(
            f"input {name!r} holds {shown(value)}, {DATATYPES[dtype]} takes {_RULES[dtype.kind]}"
        )
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype)
    except (OverflowError, FloatingPointError):
        raise BadRequest(
            f"input {name!r} holds values from {min(flat)} to {max(flat)}, {DATATYPES[dtype]} "
            "cannot hold them"
        ) from None


def _flat(name: str, level: list[Any], shape: Sequence[int]) -> list[Any]:
    """The values of nested lists, whose lengths must be the shape's."""
    for axis, size in enumerate(shape):
        if axis:
            if set(map(type, level)) - {list}:
                break
            lengths = set(map(len, level))
            if lengths - {size}:
                raise BadRequest(
                    f"input {name!r} has a list of {min(lengths - {size})} values along axis "
                    f"{axis} of its data, its shape says {size}"
                )
            level = list(chain.from_iterable(level))
        elif len(level) != size:
            break
    else:
        return level
    raise BadRequest(f"input {name!r} has data that is not nested as its shape {list(shape)} says")


def _shaped(name: str, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    try:
        return array.reshape(shape)
    except ValueError:
        raise BadRequest(f"input {name!r} has shape={list(shape)}, which is too large") from None


def _parameters(parameters: Any, request: Request) -> None:
    if not isinstance(parameters, dict):
        raise BadRequest(f"parameters={shown(parameters)}, it must be an object")
    if sequence := parameters.get("sequence_id"):
        raise BadRequest(
            f"parameters.sequence_id={shown(sequence)}: models here keep no state between "
            "requests; leave it out"
        )
    binary = parameters.get("binary_data_output", False)
    if type(binary) is not bool:
        raise BadRequest(f"parameters.binary_data_output={shown(binary)}, it must be true or false")
    request.binary_output = binary
    timeout_us = parameters.get("timeout", 0)
    if type(timeout_us) is not int or timeout_us < 0:
        raise BadRequest(
            f"parameters.timeout={shown(timeout_us)}, it must be microseconds, a whole number "
            "from 0 (none)"
        )
    if timeout_us:
        request.timeout_s = timeout_us / 1e6
    priority = parameters.get("priority", 0)
    if type(priority) is not int or not -(2**31) <= priority < 2**31:
        raise BadRequest(
            f"parameters.priority={shown(priority)}, it must be a whole number of 32 bits"
        )
    request.priority = priority


def _outputs(wanted: Any, *, binary: bool) -> dict[str, bool]:
    if not isinstance(wanted, list) or len(wanted) > MAX_OUTPUTS:
        raise BadRequest(
            f"outputs={shown(wanted)}, it must be a list of up to {MAX_OUTPUTS} outputs"
        )
    outputs: dict[str, bool] = {}
    for output in wanted:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name in outputs:
            raise BadRequest(
                f"outputs holds {shown(output)}, each must be an object with a name of its own"
            )
        parameters = output.get("parameters") or {}
        if not isinstance(parameters, dict) or parameters.keys() & {
            "classification",
            "shared_memory_region",
        }:
            raise BadRequest(
                f"output {name!r} has parameters={shown(parameters)}; only binary_data is taken"
            )
        outputs[name] = parameters.get("binary_data", binary)
        if type(outputs[name]) is not bool:
            raise BadRequest(
                f"output {name!r} has binary_data={shown(outputs[name])}, it must be true or false"
            )
    return outputs


def encode(
    outputs: Mapping[str, np.ndarray], request: Request, model: str, version: str
) -> tuple[bytes, int | None]:
    """An answer's body, and how many bytes of it are JSON; None: all of them.

    Raises:
        BadRequest: the request asks for an output that the model does not have.
    """
    tensors: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name in request.outputs or outputs:
        array = outputs.get(name)
        if array is None:
            raise BadRequest(
                f"outputs holds {shown(name)}, model {model!r} gives {', '.join(outputs)}"
            )
        kind = DATATYPES.get(array.dtype) or datatype(str(array.dtype))
        tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": array.shape}
        if request.outputs[name] if request.outputs else request.binary_output:
            blobs.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = plain(array).reshape(-1)
        tensors.append(tensor)
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": tensors}
    if request.id:
        head["id"] = request.id
    content = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return content, None
    return b"".join((content, *blobs)), len(content)


def plain(array: np.ndarray) -> np.ndarray:
    """The same values as JSON can be written from: in one piece, of a type that numpy knows."""
    if array.dtype not in DATATYPES:
        array = array.astype(np.float32)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)
