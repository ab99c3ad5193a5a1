"""A model to convert, whatever file it came from: what it computes, and what its inputs may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge.runtimes import import_runtime

Sizes = Mapping[str, int]  # axis name -> size
Arrays = dict[str, np.ndarray]
Draw = Callable[[Sizes, np.random.Generator], Arrays]


@dataclass(frozen=True)
class Axis:
    """An axis whose size may change from call to call."""

    name: str  # inputs that share a name share the size: "batch"
    low: int = 1
    high: int = 8
    multiple_of: int = 1

    def sizes(self) -> list[int]:
        """Sizes to try: the lowest, an odd one in between, and the highest."""
        step = self.multiple_of
        lowest, highest = -(-self.low // step) * step, self.high // step * step
        middle = (lowest + highest) // 2 // step * step
        if step == 1 and middle % 2 == 0 and lowest < middle + 1 < highest:
            middle += 1
        return sorted({lowest, middle, highest})


@dataclass(frozen=True)
class Source:
    """What is converted: a module in evaluation mode, or an ONNX file without one.

    The module takes the inputs by position, in the order of `example`, and gives a tensor, a tuple
    or a dict of tensors.
    """

    name: str
    origin: str  # what the file was recognised as, for people: "torchvision resnet50, state_dict"
    module: nn.Module | None
    example: Mapping[str, Tensor]  # inputs by name, in the module's order
    output_names: tuple[str, ...]
    axes: Mapping[str, Mapping[int, Axis]] = field(default_factory=dict)  # input -> dimension
    onnx: bytes | None = None  # given instead of a module
    # Draws inputs of given axis sizes; None: like `example`, see `draw_like`.
    draw: Draw | None = None

    def inputs(self, sizes: Sizes, seed: int) -> Arrays:
        """Inputs of the given axis sizes, the same for the same seed."""
        rng = np.random.default_rng(seed)
        return self.draw(sizes, rng) if self.draw else draw_like(self, sizes, rng)

    @torch.no_grad()
    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """What the source computes in float32; the module, or the ONNX file unoptimised."""
        if self.module is None:
            return _run_onnx(self, inputs)
        device = next(iter(self.module.parameters()), torch.empty(0)).device
        tensors = [torch.from_numpy(np.array(inputs[name])).to(device) for name in self.example]
        outputs = flatten(self.module(*tensors))
        return {
            name: value.detach().cpu().numpy()
            for name, value in zip(self.output_names, outputs, strict=True)
        }


def flatten(outputs: object) -> list[Tensor]:
    """The tensors in what a module returned, in order: tensor, or nested lists, tuples, dicts."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if outputs is None:
        return []
    if isinstance(outputs, Mapping):
        return [tensor for value in outputs.values() for tensor in flatten(value)]
    if isinstance(outputs, list | tuple):
        return [tensor for value in outputs for tensor in flatten(value)]
    raise ValueError(f"output of type {type(outputs).__name__} is no tensor; return tensors only")


def draw_like(source: Source, sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Inputs shaped like the example but for the given axis sizes.

    Floating inputs are normal, integers and booleans are drawn from the example's own values.
    """
    drawn = {}
    for name, example in source.example.items():
        shape = list(example.shape)
        for dimension, axis in source.axes.get(name, {}).items():
            shape[dimension] = sizes.get(axis.name, shape[dimension])
        if example.is_floating_point():
            values = rng.standard_normal(shape, dtype=np.float32)
            drawn[name] = values.astype(str(example.dtype).removeprefix("torch."))
        else:
            drawn[name] = rng.choice(example.numpy().ravel(), shape)
    return drawn


def _run_onnx(source: Source, inputs: Mapping[str, np.ndarray]) -> Arrays:
    onnxruntime: Any = import_runtime("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(source.onnx, options, providers=["CPUExecutionProvider"])
    return dict(zip(source.output_names, session.run(None, dict(inputs)), strict=True))
