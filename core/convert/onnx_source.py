"""An ONNX file as a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from core.convert.source import Axis, Source

FREE_SIZE = 2  # of an axis, in the example


def load_onnx(path: Path) -> Source:
    """Read an ONNX file; its symbolic sizes are the axes.

    Raises:
        ValueError: not ONNX, weights in other files, or an input that is no tensor of known rank.
    """
    content = path.read_bytes()
    try:
        model = onnx.load_from_string(content)
        if any(onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer):
            raise ValueError(
                f"input_path={path.name!r} has weights in other files; join them with "
                f"onnx.save(onnx.load(path), path)"
            )
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"input_path={path.name!r} is no valid ONNX file: {line}") from None
    weights = {tensor.name for tensor in model.graph.initializer}
    example: dict[str, Tensor] = {}
    axes: dict[str, dict[int, Axis]] = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        tensor_type = value.type.tensor_type
        if not tensor_type.HasField("shape"):
            raise ValueError(f"input {value.name!r} of {path.name!r} has no shape; export it again")
        shape = []
        for dimension, dim in enumerate(tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                shape.append(dim.dim_value)
                continue
            name = dim.dim_param or f"{value.name}_{dimension}"
            axes.setdefault(value.name, {})[dimension] = Axis(name)
            shape.append(FREE_SIZE)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
        values: np.ndarray = np.random.default_rng(0).standard_normal(shape)
        # Of whole numbers only 0 and 1 are surely legal: as ids, flags or counts.
        values = values if np.issubdtype(dtype, np.floating) else values > 0
        example[value.name] = torch.from_numpy(np.asarray(values).astype(dtype))
    outputs = tuple(value.name for value in model.graph.output)
    return Source(path.stem, "ONNX file", None, example, outputs, axes, onnx=content)


def opset_of(source: Source) -> int:
    """The opset of an ONNX source; 0 of a module."""
    if source.onnx is None:
        return 0
    model = onnx.load_from_string(source.onnx)
    versions = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return int(max(versions))
