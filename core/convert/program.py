"""A source as an exported program, with its axes free: what targets that read torch start from."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from core.convert.export import dynamic_shape, short_reason, traced_sizes
from core.convert.source import Source


def export_program(source: Source) -> torch.export.ExportedProgram:
    """Trace the module with every axis of the source free between its bounds.

    Raises:
        ValueError: the source has no module, or the module fixes an axis or cannot be traced.
    """
    if source.module is None:
        raise ValueError(
            f"source={source.name!r} is an ONNX file without a torch module, which this target "
            f"is made from; give the checkpoint instead"
        )
    if isinstance(source.module, torch.jit.ScriptModule):
        raise ValueError(
            f"source={source.name!r} is TorchScript, torch.export reads Python code; "
            f"give the module or its state_dict"
        )
    drawn = source.inputs(traced_sizes(source), 0)
    inputs = tuple(torch.from_numpy(np.array(drawn[name])) for name in source.example)
    shapes = tuple(dynamic_shape(source, name) for name in source.example)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on its own coming versions
            return torch.export.export(source.module, inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch.export lets through whatever the module's code raises
        raise ValueError(
            f"source={source.name!r} cannot be traced by torch.export with free axes: "
            f"{short_reason(error)}"
        ) from error


def describe_axes(source: Source) -> str:
    """The free axes for people: "batch 1-8 (x[0])"."""
    places: dict[str, list[str]] = {}
    for name, dimensions in source.axes.items():
        for dimension, axis in dimensions.items():
            text = f"{axis.name} {axis.low}-{axis.high}"
            places.setdefault(text, []).append(f"{name}[{dimension}]")
    return ", ".join(f"{text} ({', '.join(where)})" for text, where in places.items()) or "none"
