"""Which layers can lose channels: each one loses one on trial, on a copy of the model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from core.compress.config import PruneConfig
from core.convert.source import flatten

Forward = Callable[[nn.Module, Mapping[str, Tensor]], Any]

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
KEPT = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def kept_modules(
    model: nn.Module, example: Mapping[str, Tensor], forward: Forward, cfg: PruneConfig
) -> dict[str, str]:
    """Module name -> why it keeps its channels; every other layer was pruned once, on trial."""
    modules = dict(model.named_modules())
    unknown = sorted(set(cfg.kept_modules) - set(modules))
    if unknown:
        layers = [name for name, module in modules.items() if isinstance(module, PRUNABLE)]
        raise ValueError(
            f"prune.kept_modules={unknown} are not modules of this model; "
            f"choose from {', '.join(layers)}"
        )
    kept = dict.fromkeys(cfg.kept_modules, "named in prune.kept_modules")
    kept |= {
        name: f"a {type(module).__name__} is not pruned"
        for name, module in modules.items()
        if isinstance(module, KEPT)
    }
    # A module and all that is inside it.
    inside = {
        below for name in kept for below in modules if below == name or below.startswith(f"{name}.")
    }
    shapes = output_shapes(model, example, forward)
    for name, module in modules.items():
        if isinstance(module, PRUNABLE) and name not in inside:
            reason = _try(model, name, example, forward, inside, shapes)
            if reason:
                kept[name] = reason
    return kept


def _try(
    model: nn.Module,
    name: str,
    example: Mapping[str, Tensor],
    forward: Forward,
    inside: set[str],
    shapes: list[torch.Size],
) -> str:
    """Why a layer cannot lose a channel; empty when it can."""
    library, trial = pruning_library(), copy.deepcopy(model)
    layer: Any = trial.get_submodule(name)
    width: int = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if width == 1:
        return "it has one channel"
    try:
        with evaluating(trial), without_advice():
            graph = library.DependencyGraph()
            graph.build_dependency(trial, on_device(trial, example), forward_fn=forward)
            remove = graph.get_pruner_of_module(layer).prune_out_channels
            # Grouped convolutions lose one channel of each group.
            step = width // getattr(layer, "groups", 1)
            group = graph.get_pruning_group(layer, remove, idxs=list(range(0, width, step)))
            names = {module: key for key, module in trial.named_modules()}
            for dependency, _ in group:
                target = names.get(dependency.target.module, "")
                if target in inside and graph.is_out_channel_pruning_fn(dependency.handler):
                    return f"it is coupled to {target}"
            group.prune()
            if output_shapes(trial, example, forward) != shapes:
                return "the model's output would change its shape"
    except Exception as error:  # noqa: BLE001 (a library of heuristics: any failure is a finding)
        first_line = str(error).splitlines()[:1]
        return f"pruning it fails: {type(error).__name__} {' '.join(first_line)}"
    return ""


@torch.no_grad()
def output_shapes(
    model: nn.Module, example: Mapping[str, Tensor], forward: Forward
) -> list[torch.Size]:
    """The shapes of everything a model gives, in order."""
    with evaluating(model):
        return [value.shape for value in flatten(forward(model, on_device(model, example)))]


@torch.no_grad()
def count_module_flops(model: nn.Module, example: Mapping[str, Tensor], forward: Forward) -> int:
    """Operations of one run, two for each multiply-add; recurrent layers count like products."""
    recurrent = 0

    def add(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        nonlocal recurrent
        assert isinstance(module, nn.RNNBase)
        positions = inputs[0].shape[:-1].numel()
        weights = sum(p.numel() for name, p in module.named_parameters() if "weight" in name)
        recurrent += 2 * positions * weights

    found = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    hooks = [module.register_forward_hook(add) for module in found]
    try:
        with evaluating(model), FlopCounterMode(display=False) as counter:
            forward(model, on_device(model, example))
    finally:
        for hook in hooks:
            hook.remove()
    return int(counter.get_total_flops()) + recurrent


def on_device(model: nn.Module, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The example where the model's weights are."""
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in example.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, then what it was before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def without_advice() -> Iterator[None]:
    """Torch-pruning warns of parameters outside layers; whether they matter is tried here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pruning_library() -> Any:
    """Torch-pruning, without what it says when it is imported."""
    try:
        with without_advice():
            import torch_pruning
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"{missing.name} is not installed; pip install '.[convert]'", name=missing.name
        ) from missing
    return torch_pruning
