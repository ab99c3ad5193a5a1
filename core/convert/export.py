"""A source as a portable ONNX file, by the first exporter whose file computes the same.

An exporter may freeze the example's sizes into the graph without a word, so every file is run at
other sizes than it was traced with before it counts.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from core.convert.graph import at_opset, rename_ends, run_model, strip
from core.convert.source import Arrays, Axis, Sizes, Source, flatten

# What torch.export writes; older opsets are converted from it.
DYNAMO_OPSET = 18
# Wide: catches a wrong or frozen graph, the parity check is the strict one.
LOOSE = 1e-3


class ExportError(ValueError):
    """No exporter made a file that computes the same as the source."""


@dataclass(frozen=True)
class ExportStep:
    """One exporter tried; without a reason it worked."""

    name: str  # "dynamo", "legacy", "split", "given"
    reason: str = ""


@dataclass(frozen=True)
class ExportTrail:
    """The exporters tried, in order; the last one made the file."""

    opset: int
    steps: tuple[ExportStep, ...]

    @property
    def used(self) -> str:
        """The step that made the file."""
        return self.steps[-1].name

    def to_json(self) -> dict[str, Any]:
        """Plain values; the same for the same source and versions."""
        return asdict(self)


def export_onnx(source: Source, path: Path, *, opset: int = 18) -> ExportTrail:
    """Write a source as one ONNX file, every axis of `source.axes` free.

    Tried in order: the torch.export based exporter ("dynamo"), the tracing one ("legacy", first
    below opset 18), and the module's parts one by one, joined ("split"). Inputs are named as
    `source.example`, outputs as `source.output_names`; equal sources give equal bytes.

    Args:
        source: what to export; an ONNX source is checked and written.
        path: the file to write; nothing is written when no exporter works.
        opset: of the file; at most 17 for Ascend.

    Returns:
        What was tried, and why it did not work.

    Raises:
        ExportError: no step gave a file with the source's outputs; says the reason of each.
    """
    # Imported here: the split exports parts with the steps above.
    from core.convert.split import export_split

    steps: dict[str, Callable[[Source, int], onnx.ModelProto]]
    if source.onnx is not None:
        steps = {"given": _given}
    elif opset >= DYNAMO_OPSET:
        steps = {"dynamo": export_dynamo, "legacy": export_legacy, "split": export_split}
    else:
        # Converting down often fails; the tracing exporter writes old opsets itself.
        steps = {"legacy": export_legacy, "dynamo": export_dynamo, "split": export_split}
    if source.onnx is not None:
        _free_axes(source, onnx.load_from_string(source.onnx))
    samples = run_samples(source)
    tried: list[ExportStep] = []
    for name, export in steps.items():
        try:
            model = finish(source, export(source, opset), samples)
        except Exception as error:  # noqa: BLE001 (exporters raise anything; the trail tells it)
            tried.append(ExportStep(name, short_reason(error)))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return ExportTrail(opset, (*tried, ExportStep(name)))
    reasons = "; ".join(f"{step.name}: {step.reason}" for step in tried)
    raise ExportError(f"model={source.name!r} cannot be exported to ONNX opset {opset}: {reasons}")


def export_dynamo(source: Source, opset: int) -> onnx.ModelProto:
    """Export through torch.export; below opset 18 the file is converted down."""
    if isinstance(source.module, torch.jit.ScriptModule):
        raise ExportError("torch.export reads Python code, the module is TorchScript")
    module, wrapped = _with_flat_outputs(source)
    shapes = tuple(dynamic_shape(source, name) for name in source.example)
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(_traced_inputs(source)),
            dynamo=True,
            dynamic_shapes=(shapes,) if wrapped else shapes,
            # The exporter does not see when a name is taken by an inner value.
            input_names=[f"<input {index}>" for index in range(len(source.example))],
            output_names=[f"<output {index}>" for index in range(len(source.output_names))],
            opset_version=max(opset, DYNAMO_OPSET),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = at_opset(program.model_proto, opset)
    rename_ends(model, tuple(source.example), source.output_names)
    return model


def export_legacy(source: Source, opset: int) -> onnx.ModelProto:
    """Export by tracing one run, the exporter of before torch 2.9."""
    module, _ = _with_flat_outputs(source)
    buffer = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            module,
            tuple(_traced_inputs(source)),
            buffer,  # type: ignore[arg-type]  # any file object is taken
            dynamo=False,
            dynamic_axes={
                name: {dimension: axis.name for dimension, axis in axes.items()}
                for name, axes in source.axes.items()
            },
            input_names=list(source.example),
            output_names=list(source.output_names),
            opset_version=opset,
        )
    return onnx.load_from_string(buffer.getvalue())


@dataclass(frozen=True)
class Sample:
    """One run of a source."""

    sizes: Sizes
    inputs: Arrays
    outputs: Arrays


def finish(source: Source, model: onnx.ModelProto, samples: Sequence[Sample]) -> onnx.ModelProto:
    """Check an exported model against runs of its source, name its axes, drop exporters' notes.

    Raises:
        ExportError: invalid, other names, an axis is frozen, or the outputs are not the source's.
    """
    onnx.checker.check_model(model)
    _check_names(source, model)
    _free_axes(source, model)
    strip(model)
    for sample in samples:
        _check_outputs(model, sample)
    _name_output_sizes(model, samples)
    return model


def run_samples(source: Source) -> list[Sample]:
    """Runs of a source at small sizes, other than those it is traced with."""
    samples = []
    for sizes in trial_sizes(source):
        inputs = source.inputs(sizes, 1)
        samples.append(Sample(sizes, inputs, source.run(inputs)))
    return samples


def trial_sizes(source: Source) -> list[dict[str, int]]:
    """Axis sizes to run a file at: small ones, other than those traced, each axis its own."""
    traced = traced_sizes(source)
    trials = []
    for turn in range(2):
        sizes = {}
        for position, axis in enumerate(axes_of(source).values()):
            step = axis.multiple_of
            first = -(-axis.low // step) * step
            # Sizes at which rows and columns cannot be mixed up unnoticed.
            wanted = [first, *(first + step * factor for factor in (2, 4, 6, 3, 5, 1))]
            legal = [s for s in wanted if s <= axis.high and s != traced[axis.name]]
            legal = legal or [traced[axis.name]]
            sizes[axis.name] = legal[0] if turn == 0 else legal[(1 + position) % len(legal)]
        if sizes not in trials:
            trials.append(sizes)
    return trials


def traced_sizes(source: Source) -> dict[str, int]:
    """Axis sizes to trace with; at least 2 where allowed, for exporters take a 1 as fixed."""
    sizes = {}
    for axis in axes_of(source).values():
        step = axis.multiple_of
        lowest = -(-max(axis.low, 2) // step) * step
        sizes[axis.name] = lowest if lowest <= axis.high else axis.high // step * step
    return sizes


def axes_of(source: Source) -> dict[str, Axis]:
    """Axes by name, in the order of the inputs."""
    return {axis.name: axis for axes in source.axes.values() for axis in axes.values()}


def short_reason(error: Exception) -> str:
    """The first telling line of an exporter's error, without paths of this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    text = re.sub(r"(?:/[\w.+-]+){2,}/", "", re.sub(r"\x1b\[[\d;]*m", "", text))
    text = text if len(text) <= 300 else text[:299] + "…"
    return text if isinstance(error, ExportError) else f"{type(error).__name__}: {text}"


class _FlatOutputs(nn.Module):
    """A module whose outputs, however nested, come as one tuple of tensors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        # An exporter puts what it was given back into the mode that it saw on the outside.
        self.train(module.training)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All tensors of the module's output, in order."""
        return tuple(flatten(self.module(*inputs)))


@torch.no_grad()
def _with_flat_outputs(source: Source) -> tuple[nn.Module, bool]:
    """The module, wrapped if it gives anything but tensors; and whether it was."""
    assert source.module is not None
    outputs = source.module(*_traced_inputs(source))
    plain = isinstance(outputs, Tensor) or (
        type(outputs) is tuple and all(isinstance(output, Tensor) for output in outputs)
    )
    if (count := len(flatten(outputs))) != len(source.output_names):
        raise ExportError(
            f"the module gives {count} tensors, output_names={list(source.output_names)}"
        )
    return (source.module, False) if plain else (_FlatOutputs(source.module), True)


def _traced_inputs(source: Source) -> list[Tensor]:
    inputs = source.inputs(traced_sizes(source), 0)
    return [torch.from_numpy(np.array(inputs[name])) for name in source.example]


def dynamic_shape(source: Source, name: str) -> dict[int, Any]:
    """Which dimensions of an input are free, as torch.export takes it."""
    shape = {}
    for dimension, axis in source.axes.get(name, {}).items():
        step = axis.multiple_of
        label = re.sub(r"\W", "_", axis.name)
        if step == 1:
            shape[dimension] = torch.export.Dim(label, min=axis.low, max=axis.high)
        else:
            unit = torch.export.Dim(f"_{label}", min=-(-axis.low // step), max=axis.high // step)
            shape[dimension] = step * unit
    return shape


def _given(source: Source, opset: int) -> onnx.ModelProto:
    assert source.onnx is not None
    return at_opset(onnx.load_from_string(source.onnx), opset)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own deprecations and print graphs; the file is run instead."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _check_names(source: Source, model: onnx.ModelProto) -> None:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in initializers]
    outputs = [value.name for value in model.graph.output]
    if inputs != list(source.example) or outputs != list(source.output_names):
        raise ExportError(
            f"the file has inputs {inputs} and outputs {outputs}, the source has "
            f"{list(source.example)} and {list(source.output_names)}"
        )


def _free_axes(source: Source, model: onnx.ModelProto) -> None:
    """Refuse an input whose axis has a fixed size; name the axes as the source does."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dimension, axis in source.axes.get(value.name, {}).items():
            if dims[dimension].HasField("dim_value"):
                raise ExportError(
                    f"axis {axis.name!r} of input {value.name!r} was frozen at "
                    f"{dims[dimension].dim_value}"
                )
            dims[dimension].dim_param = axis.name


def _check_outputs(model: onnx.ModelProto, sample: Sample) -> None:
    try:
        outputs = run_model(model, sample.inputs)
    except Exception as error:
        raise ExportError(
            f"the file does not run at {_words(sample.sizes)}: {short_reason(error)}"
        ) from error
    for name, wanted in sample.outputs.items():
        got = outputs[name]
        if got.shape != wanted.shape:
            raise ExportError(
                f"output {name!r} has shape {list(got.shape)} at {_words(sample.sizes)}, the "
                f"source gives {list(wanted.shape)}: an axis was frozen"
            )
        if (distance := _distance(got, wanted)) > LOOSE:
            raise ExportError(f"output {name!r} is off by {distance:.2g} at {_words(sample.sizes)}")


def _name_output_sizes(model: onnx.ModelProto, samples: Sequence[Sample]) -> None:
    """Free the output sizes that changed between runs; exporters note some as fixed."""
    for value in model.graph.output:
        for dimension, dim in enumerate(value.type.tensor_type.shape.dim):
            seen = [(run.sizes, run.outputs[value.name].shape[dimension]) for run in samples]
            if dim.HasField("dim_value") and all(size == dim.dim_value for _, size in seen):
                continue
            same = [name for name in seen[0][0] if all(sizes[name] == size for sizes, size in seen)]
            dim.dim_param = same[0] if same else f"{value.name}_{dimension}"


def _words(sizes: Sizes) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items()) or "its own sizes"


def _distance(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference by the output's own size; of whole numbers, the share that differs."""
    if not wanted.size:
        return 0.0
    if not np.issubdtype(wanted.dtype, np.floating):
        return float(np.mean(got != wanted))
    if not np.array_equal(np.isfinite(got), np.isfinite(wanted)):
        return float("inf")
    finite = np.isfinite(wanted)
    scale = max(1.0, float(np.max(np.abs(wanted), where=finite, initial=0)))
    return float(np.max(np.abs(got - wanted), where=finite, initial=0)) / scale
