"""Export of a module part by part, for modules that no single exporter takes whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.compose
import torch
from torch import Tensor, nn

from core.convert.export import (
    ExportError,
    Sample,
    axes_of,
    export_dynamo,
    export_legacy,
    finish,
    short_reason,
    traced_sizes,
    trial_sizes,
)
from core.convert.source import Arrays, Axis, Sizes, Source, flatten

# Sizes between parts follow from the inputs' in ways that are not known here.
ANY_SIZE = 1 << 20


def export_split(source: Source, opset: int) -> onnx.ModelProto:
    """Export a chain of parts, each with the exporter that takes it, and join the files.

    The module must hand its inputs to its first child, each child's outputs to the next, and give
    the outputs of the last, as `nn.Sequential` does.

    Raises:
        ExportError: the module is no such chain, or no exporter takes a part; names the part.
    """
    runs = [_run_parts(source, sizes) for sizes in (traced_sizes(source), *trial_sizes(source))]
    joined: onnx.ModelProto | None = None
    for position, name in enumerate(call.name for call in runs[0][1]):
        calls = [(sizes, calls[position]) for sizes, calls in runs]
        is_last = position + 1 == len(runs[0][1])
        part = _part_source(source, calls, position, is_last)
        model = _export_part(name, part, calls, opset)
        if joined is None:
            joined = model
            continue
        model.ir_version = joined.ir_version = max(model.ir_version, joined.ir_version)
        joined = onnx.compose.merge_models(joined, model, [(n, n) for n in part.example])
    assert joined is not None
    return joined


@dataclass(frozen=True)
class _Call:
    """What went into and came out of one child."""

    name: str
    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]


@torch.no_grad()
def _run_parts(source: Source, sizes: Sizes) -> tuple[Sizes, list[_Call]]:
    """Run the module and see what each child got; refuses anything but a chain."""
    assert source.module is not None
    calls: list[_Call] = []

    def record(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(
            lambda _, inputs, outputs: calls.append(
                _Call(name, module, flatten(inputs), flatten(outputs))
            )
        )

    hooks = [record(name, module) for name, module in source.module.named_children()]
    arrays = source.inputs(sizes, 0)
    inputs = [torch.from_numpy(np.array(arrays[name])) for name in source.example]
    try:
        outputs = flatten(source.module(*inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if len(calls) < 2:
        raise ExportError(f"the module has {len(calls)} part(s) to export one by one")
    given, giver = inputs, "the inputs"
    for call in calls:
        if not _are_same(given, call.inputs):
            raise ExportError(f"{giver} do not go straight into part {call.name!r}")
        given, giver = call.outputs, f"outputs of part {call.name!r}"
    if not _are_same(given, outputs):
        raise ExportError(f"{giver} are not the module's outputs")
    return sizes, calls


def _are_same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _part_source(
    source: Source, calls: Sequence[tuple[Sizes, _Call]], position: int, is_last: bool
) -> Source:
    """One part as a source; sizes that change between runs are axes."""
    call = calls[0][1]
    inputs = (
        tuple(source.example)
        if position == 0
        else tuple(f"part_{position}_{index}" for index in range(len(call.inputs)))
    )
    outputs = (
        source.output_names
        if is_last
        else tuple(f"part_{position + 1}_{index}" for index in range(len(call.outputs)))
    )
    axes = {
        name: dict(source.axes.get(name, {})) if position == 0 else _axes(source, name, shapes)
        for index, name in enumerate(inputs)
        for shapes in [[(sizes, run.inputs[index].shape) for sizes, run in calls]]
    }
    arrays = _arrays(inputs, call.inputs)
    return Source(
        name=call.name,
        origin=source.origin,
        module=call.module,
        example=dict(zip(inputs, call.inputs, strict=True)),
        output_names=outputs,
        axes=axes,
        draw=lambda sizes, rng: arrays,  # noqa: ARG005 (real values in the real sizes)
    )


def _axes(source: Source, name: str, shapes: Sequence[tuple[Sizes, torch.Size]]) -> dict[int, Axis]:
    axes = {}
    known = axes_of(source)
    for dimension in range(len(shapes[0][1])):
        seen = [shape[dimension] for _, shape in shapes]
        same = [axis for axis in known if seen == [sizes[axis] for sizes, _ in shapes]]
        if len(set(seen)) > 1:
            axes[dimension] = known[same[0]] if same else Axis(f"{name}_{dimension}", 1, ANY_SIZE)
    return axes


def _export_part(
    name: str, part: Source, calls: Sequence[tuple[Sizes, _Call]], opset: int
) -> onnx.ModelProto:
    samples = [
        Sample(sizes, _arrays(part.example, call.inputs), _arrays(part.output_names, call.outputs))
        for sizes, call in calls
    ]
    reasons = []
    for export in (export_dynamo, export_legacy):
        try:
            model = finish(part, export(part, opset), samples)
        except Exception as error:  # noqa: BLE001 (exporters raise anything; told below)
            reasons.append(short_reason(error))
            continue
        keep = {"rename_inputs": False, "rename_outputs": False}
        return onnx.compose.add_prefix(model, f"{name}/", **keep)
    raise ExportError(f"part {name!r}: dynamo: {reasons[0]}; legacy: {reasons[1]}")


def _arrays(names: Iterable[str], tensors: Sequence[Tensor]) -> Arrays:
    return dict(zip(names, (tensor.numpy() for tensor in tensors), strict=True))
