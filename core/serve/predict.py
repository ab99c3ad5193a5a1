"""The typed endpoint of a model: JSON objects with one member for each input and output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from core.serve.engine import Served
from core.serve.errors import BadRequest
from core.serve.oip import flat_array, plain, shown
from edge.manifest import Tensor

# How long an axis of any size is in examples, and how many values an example may have.
EXAMPLE_SIZE = 1
MAX_EXAMPLE = 8192


def decode(content: Mapping[str, Any], inputs: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Arrays from `{"input": nested lists}`, of the model's own types and as many axes.

    Raises:
        BadRequest: an input is missing, unknown, ragged, or holds what its type does not.
    """
    if len(content) != len(inputs) or any(tensor.name not in content for tensor in inputs):
        names = [tensor.name for tensor in inputs]
        told = f"the inputs are {', '.join(names)}"
        if missing := [name for name in names if name not in content]:
            raise BadRequest(f"input {missing[0]!r} is missing; {told}")
        unknown = next(name for name in content if name not in names)
        raise BadRequest(f"input {shown(unknown)} is unknown; {told}")
    return {tensor.name: _array(tensor, content[tensor.name]) for tensor in inputs}


def _array(tensor: Tensor, data: Any) -> np.ndarray:
    level: list[Any] = [data]
    shape: list[int] = []
    for axis in range(len(tensor.shape)):
        if set(map(type, level)) != {list}:
            value = next((value for value in level if type(value) is not list), level)
            raise BadRequest(
                f"input {tensor.name!r} holds {shown(value)} where its axis {axis} is, it must be "
                f"lists nested as ({', '.join(map(str, tensor.shape))})"
            )
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise BadRequest(
                f"input {tensor.name!r} has lists of {min(lengths)} and of {max(lengths)} values "
                f"along axis {axis}; they must be equally long"
            )
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
        if not level:
            raise BadRequest(f"input {tensor.name!r} has no values along axis {axis}; give some")
    dtype = np.dtype("float32" if tensor.dtype == "bfloat16" else tensor.dtype)
    return flat_array(tensor.name, level, dtype).reshape(shape)


def encode(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name, as JSON can be written from."""
    return {name: plain(array) for name, array in outputs.items()}


def request_schema(served: Served) -> dict[str, Any]:
    """JSON schema of what `decode` takes, with an example where it stays small."""
    schema = _schema(served.inputs)
    sizes = [
        math.prod(size if isinstance(size, int) else EXAMPLE_SIZE for size in tensor.shape)
        for tensor in served.inputs
    ]
    if sum(sizes) <= MAX_EXAMPLE:
        schema["examples"] = [example(served)]
    return schema


def response_schema(served: Served) -> dict[str, Any]:
    """JSON schema of what `encode` gives."""
    return _schema(served.outputs)


def example(served: Served) -> dict[str, Any]:
    """A request of zeros, which any model takes."""
    return {
        tensor.name: np.zeros(
            [size if isinstance(size, int) else EXAMPLE_SIZE for size in tensor.shape],
            "float32" if tensor.dtype == "bfloat16" else tensor.dtype,
        ).tolist()
        for tensor in served.inputs
    }


def _schema(tensors: Sequence[Tensor]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [tensor.name for tensor in tensors],
        "properties": {tensor.name: _tensor(tensor) for tensor in tensors},
        "additionalProperties": False,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    schema = _value(tensor.dtype)
    for axis in reversed(tensor.shape):
        schema = {"type": "array", "items": schema}
        if isinstance(axis, int):
            schema |= {"minItems": axis, "maxItems": axis}
    shape = ", ".join(map(str, tensor.shape))
    return {**schema, "description": f"{tensor.dtype} of shape ({shape})"}


def _value(dtype: str) -> dict[str, Any]:
    if dtype == "bool":
        return {"type": "boolean"}
    if dtype == "bfloat16" or np.dtype(dtype).kind == "f":
        return {"type": "number"}
    info = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}
