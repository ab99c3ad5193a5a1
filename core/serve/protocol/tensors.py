"""Tensors of gRPC messages to arrays and back."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from core.serve.errors import BadRequest

# The protocol's name -> numpy's, and where the typed form keeps its values (FP16 is raw only).
DATATYPES = {
    "BOOL": ("bool", "bool_contents"),
    "INT8": ("int8", "int_contents"),
    "INT16": ("int16", "int_contents"),
    "INT32": ("int32", "int_contents"),
    "INT64": ("int64", "int64_contents"),
    "UINT8": ("uint8", "uint_contents"),
    "UINT16": ("uint16", "uint_contents"),
    "UINT32": ("uint32", "uint_contents"),
    "UINT64": ("uint64", "uint64_contents"),
    "FP16": ("float16", ""),
    "FP32": ("float32", "fp32_contents"),
    "FP64": ("float64", "fp64_contents"),
}
MAX_AXES = 16
NAMES = {numpy_name: name for name, (numpy_name, _) in DATATYPES.items()}


def read_inputs(request: Any) -> dict[str, np.ndarray]:
    """Arrays of a ModelInferRequest, by name; those of raw contents are views, not to be written.

    Raises:
        BadRequest: a datatype is unknown, or values and shape do not fit; the input is named.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; "
            "send each input there, or each as contents"
        )
    arrays: dict[str, np.ndarray] = {}
    for at, tensor in enumerate(request.inputs):
        name = tensor.name
        if name in arrays:
            raise BadRequest(f"input {name!r} is there twice; send it once")
        if tensor.datatype not in DATATYPES:
            known = ", ".join(DATATYPES)
            raise BadRequest(f"input {name!r} has datatype={tensor.datatype!r}, not one of {known}")
        if "shared_memory_region" in tensor.parameters:
            raise BadRequest(f"input {name!r} is in shared memory, which is not offered; send it")
        shape = tuple(tensor.shape)
        if len(shape) > MAX_AXES or any(not 0 <= size < 2**31 for size in shape):
            raise BadRequest(
                f"input {name!r} has shape={shape}; it may have {MAX_AXES} axes of 0 to 2^31 - 1"
            )
        if raw:
            arrays[name] = _from_raw(name, tensor.datatype, shape, raw[at])
        else:
            arrays[name] = _from_contents(name, tensor.datatype, shape, tensor.contents)
    return arrays


def _from_raw(name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> np.ndarray:
    dtype = np.dtype(DATATYPES[datatype][0]).newbyteorder("<")
    wanted = prod(shape) * dtype.itemsize
    if len(raw) != wanted:
        raise BadRequest(
            f"input {name!r} has {len(raw)} bytes, shape={shape} of {datatype} takes {wanted}"
        )
    if datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
        raise BadRequest(f"input {name!r} has bytes other than 0 and 1, which BOOL has not")
    return np.ndarray(shape, dtype, raw)


def _from_contents(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> np.ndarray:
    dtype, field = DATATYPES[datatype]
    if not field:
        raise BadRequest(f"input {name!r} is {datatype}, sent only as raw_input_contents")
    values = getattr(contents, field)
    if len(values) != prod(shape):
        raise BadRequest(
            f"input {name!r} has {len(values)} values in contents.{field}, "
            f"shape={shape} takes {prod(shape)}"
        )
    try:
        return np.array(values, dtype).reshape(shape)
    except OverflowError as error:
        raise BadRequest(f"input {name!r} does not fit {datatype}: {error}") from None


def write_outputs(response: Any, outputs: Mapping[str, np.ndarray], wanted: list[str]) -> None:
    """Add arrays to a ModelInferResponse, as raw contents.

    Raises:
        BadRequest: one of `wanted` is no output of the model.
    """
    for name in wanted or outputs:
        if name not in outputs:
            raise BadRequest(f"output {name!r} is unknown; the outputs are {', '.join(outputs)}")
        array = outputs[name]
        response.outputs.add(name=name, datatype=NAMES[array.dtype.name], shape=array.shape)
        response.raw_output_contents.append(np.ascontiguousarray(array, _little(array)).tobytes())


def _little(array: np.ndarray) -> np.dtype[Any]:
    return array.dtype.newbyteorder("<")
