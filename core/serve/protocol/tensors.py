"""Tensors of gRPC messages to arrays and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from core.serve.errors import BadRequest
from core.serve.oip import DTYPES, MAX_AXES, datatype, flat_array, shown

# Where the typed form keeps values; FP16 and BF16 are raw only.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


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
        name, kind = tensor.name, tensor.datatype
        if name in arrays:
            raise BadRequest(f"input {name!r} is there twice; send it once")
        if kind not in DTYPES:
            known = ", ".join(DTYPES)
            raise BadRequest(
                f"input {name!r} has datatype={shown(kind)}, it must be one of {known}"
            )
        if "shared_memory_region" in tensor.parameters:
            raise BadRequest(f"input {name!r} is in shared memory, which is not offered; send it")
        shape = tuple(tensor.shape)
        if len(shape) > MAX_AXES or any(not 0 <= size < 2**31 for size in shape):
            raise BadRequest(
                f"input {name!r} has shape={shown(shape)}; it may have {MAX_AXES} axes of 0 to "
                "2^31 - 1"
            )
        values = _from_raw(name, kind, shape, raw[at]) if raw else _typed(name, kind, shape, tensor)
        arrays[name] = values.reshape(shape)
    return arrays


def _from_raw(name: str, kind: str, shape: tuple[int, ...], raw: bytes) -> np.ndarray:
    dtype = np.dtype(np.uint16) if kind == "BF16" else DTYPES[kind]
    wanted = prod(shape) * dtype.itemsize
    if len(raw) != wanted:
        raise BadRequest(
            f"input {name!r} has {len(raw)} bytes, shape={shape} of {kind} takes {wanted}"
        )
    array = np.frombuffer(raw, dtype)
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if kind == "BOOL" and raw.translate(None, b"\x00\x01"):
        raise BadRequest(f"input {name!r} has bytes other than 0 and 1, BOOL takes no other")
    return array


def _typed(name: str, kind: str, shape: tuple[int, ...], tensor: Any) -> np.ndarray:
    if kind not in CONTENTS:
        raise BadRequest(f"input {name!r} is {kind}, which is sent only as raw_input_contents")
    values = getattr(tensor.contents, CONTENTS[kind])
    if len(values) != prod(shape):
        raise BadRequest(
            f"input {name!r} has {len(values)} values in contents.{CONTENTS[kind]}, "
            f"shape={shape} takes {prod(shape)}"
        )
    return flat_array(name, list(values), DTYPES[kind])


def write_outputs(response: Any, outputs: Mapping[str, np.ndarray], wanted: Sequence[str]) -> None:
    """Add arrays to a ModelInferResponse, as raw contents.

    Raises:
        BadRequest: one of `wanted` is no output of the model.
    """
    for name in wanted or outputs:
        if name not in outputs:
            raise BadRequest(f"output {name!r} is unknown; the outputs are {', '.join(outputs)}")
        array = outputs[name]
        response.outputs.add(name=name, datatype=datatype(str(array.dtype)), shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
