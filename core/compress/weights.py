"""Linear weights in 8 bits, everything computed in float: for models that wait for memory."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.compress.measure import Arrays, Predict, Row, latencies_ms
from core.compress.trial import Forward, count_module_flops


@dataclass(frozen=True)
class WeightOnly:
    """A module with 8-bit weights, and what that cost and gained."""

    module: nn.Module
    table: tuple[Row, ...]  # before, after; bytes of all weights and buffers
    notes: tuple[str, ...]


def weight_only(
    module: nn.Module,
    example: Mapping[str, Tensor],
    *,
    forward: Forward | None = None,
    metric: Callable[[nn.Module], float] | None = None,
    runs: int = 30,
) -> WeightOnly:
    """Copy a module with the weights of its linear layers in 8 bits, one scale per output.

    The activations stay in float32, so that no calibration is needed; on a CPU this saves memory,
    seldom time. The copy runs in torch; for ONNX see `core.compress.quantize`.

    Args:
        module: with linear layers; it stays as it is.
        example: inputs by name, for the table.
        forward: runs a module on the example; None gives it the tensors by position.
        metric: of a module, higher is better.
        runs: behind each latency; both modules take turns.

    Raises:
        ValueError: the module has no linear layer.
        ModuleNotFoundError: torchao is not installed.
    """
    layers = [name for name, part in module.named_modules() if type(part) is nn.Linear]
    if not layers:
        raise ValueError(
            f"{type(module).__name__} has no linear layer, whose weights alone could be 8-bit; "
            "use core.compress.quantize"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"{missing.name} is not installed; pip install '.[convert]'", name=missing.name
        ) from missing
    before, after = module.eval(), copy.deepcopy(module).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_(after, Int8WeightOnlyConfig(set_inductor_config=False))
    run = forward or _by_position
    models = {"before": before, "after": after}
    predicts = {name: _predict(part, example, run) for name, part in models.items()}
    latency = latencies_ms(predicts, {}, runs)
    batch = str(len(next(iter(example.values()))))
    flops = count_module_flops(before, example, run) // int(batch)
    table = tuple(
        Row(
            name=name,
            metric=metric(part) if metric else None,
            bytes=_bytes(part),
            flops=flops,
            latency_ms={batch: round(statistics.median(latency[name]), 4)},
        )
        for name, part in models.items()
    )
    return WeightOnly(after, table, (f"{len(layers)} linear layers hold 8-bit weights",))


def _by_position(module: nn.Module, example: Mapping[str, Tensor]) -> Any:
    return module(*example.values())


def _predict(module: nn.Module, example: Mapping[str, Tensor], run: Forward) -> Predict:
    def predict(_: Arrays) -> Mapping[str, np.ndarray]:
        with torch.no_grad():
            run(module, example)
        return {}

    return predict


def _bytes(module: nn.Module) -> int:
    total = 0
    for tensor in (*module.parameters(), *module.buffers()):
        # A quantised tensor is several plain ones.
        names = getattr(tensor, "tensor_data_names", None)
        plain = [getattr(tensor, name) for name in names] if names else [tensor]
        total += sum(part.numel() * part.element_size() for part in plain)
    return total
