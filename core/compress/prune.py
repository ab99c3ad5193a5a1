"""Whole channels out of a model, down to a share of its FLOPs, and training to make up for it."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from core.compress.config import PruneConfig
from core.compress.measure import Compression, compare_models
from core.convert.export import export_onnx
from core.convert.source import Source, flatten
from core.kit import Task
from core.train.config import TrainConfig
from core.train.run import write_atomic
from core.train.trainer import Trainer

Forward = Callable[[nn.Module, Mapping[str, Tensor]], Any]

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
KEPT = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
# From nothing to the largest share pruned in so many steps; the FLOPs are looked at in between.
NUM_STEPS = 60
# This near to the wanted share they are looked at after every layer.
NEAR = 0.05


@dataclass(frozen=True)
class Pruning:
    """What pruning left."""

    model: nn.Module  # the task's own, changed in place, with its best weights
    checkpoint: Path  # of the last round's training
    compression: Compression  # `path` is the pruned model as ONNX


def prune(
    task: Task[Any],
    cfg: PruneConfig,
    train_cfg: TrainConfig,
    run_dir: Path,
    *,
    forward: Forward | None = None,
) -> Pruning:
    """Prune a task's trained model in place and train it on, round by round.

    Channels with the least weight go first, over all layers alike; layers coupled through sums
    and concatenations lose the same ones. A layer whose pruning breaks the model, changes its
    output or reaches a recurrent or attention layer keeps its channels and is listed.

    Args:
        task: its model is trained already.
        cfg: how much, in how many rounds.
        train_cfg: of the training after each round.
        run_dir: rounds go to `round-<n>`, the models to `before.onnx` and `pruned.onnx`, what each
            layer kept to `pruned.json`.
        forward: runs the model on `task.example()`; None gives it the tensors by position, or the
            mapping where the model takes one argument and the example has several.

    Returns:
        the model, its checkpoint, and the before/after table with ONNX sizes and latencies.

    Raises:
        ValueError: a kept module does not exist, or the wanted share cannot be reached.
        ModuleNotFoundError: torch-pruning is not installed.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    forward = forward or _forward_of(task)
    example = task.example()
    before = _evaluate(task, train_cfg)
    _export(task.model, example, forward, run_dir / "before.onnx")
    model, whole = task.model, count_module_flops(task.model, example, forward)
    kept = _kept_modules(model, example, forward, cfg)
    pruner = _pruner(model, example, forward, cfg, [model.get_submodule(name) for name in kept])
    checkpoint = run_dir
    for number in range(1, cfg.rounds + 1):
        wanted = 1 - (1 - cfg.flops_share) * number / cfg.rounds
        _prune_to(pruner, lambda: count_module_flops(model, example, forward) / whole, wanted, cfg)
        checkpoint = Trainer(task, train_cfg, run_dir=_folder(run_dir, number)).fit()
    share = count_module_flops(model, example, forward) / whole
    path = _export(model, example, forward, run_dir / "pruned.onnx")
    names = {"before": run_dir / "before.onnx", "after": path}
    samples = {name: np.asarray(value) for name, value in example.items()}
    rows = compare_models(
        names, samples, {"before": before, "after": _evaluate(task, train_cfg)},
        runs=cfg.latency_runs,
    )  # fmt: skip
    notes = [f"{share:.1%} of the FLOPs remain after {cfg.rounds} rounds"]
    notes += [f"{name} keeps its channels: {reason}" for name, reason in kept.items()]
    made = Compression(path, "prune", tuple(kept), rows, tuple(notes))
    write_atomic(
        run_dir / "pruned.json", json.dumps({"prune": asdict(cfg), **made.to_json()}, indent=2)
    )
    return Pruning(model, checkpoint, made)


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
        with _evaluating(model), FlopCounterMode(display=False) as counter:
            forward(model, _on_device(model, example))
    finally:
        for hook in hooks:
            hook.remove()
    return int(counter.get_total_flops()) + recurrent


def _prune_to(pruner: Any, share: Callable[[], float], wanted: float, cfg: PruneConfig) -> None:
    """Prune until no more than the wanted share of FLOPs remains."""
    now = share()
    while now > wanted and pruner.current_step < pruner.iterative_steps:
        for group in pruner.step(interactive=True):
            group.prune()
            if now - wanted < NEAR:
                now = share()
                if now <= wanted:
                    break
        now = share()
    if abs(now - wanted) > cfg.tolerance:
        raise ValueError(
            f"prune.flops_share={cfg.flops_share} cannot be reached within {cfg.tolerance}: pruned "
            f"to {now:.3f} where {wanted:.3f} was wanted; allow a larger prune.max_layer_share or "
            "prune.tolerance"
        )


def _pruner(
    model: nn.Module,
    example: Mapping[str, Tensor],
    forward: Forward,
    cfg: PruneConfig,
    kept: list[nn.Module],
) -> Any:
    library = _library()
    with _evaluating(model), _without_advice():
        return library.pruner.BasePruner(
            model,
            _on_device(model, example),
            importance=library.importance.GroupMagnitudeImportance(p=cfg.norm),
            global_pruning=True,
            pruning_ratio=cfg.max_layer_share,
            max_pruning_ratio=cfg.max_layer_share,
            iterative_steps=NUM_STEPS,
            ignored_layers=kept,
            round_to=cfg.round_to if cfg.round_to > 1 else None,
            forward_fn=forward,
        )


def _kept_modules(
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
    shapes = _shapes(model, example, forward)
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
    library, trial = _library(), copy.deepcopy(model)
    layer: Any = trial.get_submodule(name)
    width: int = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if width == 1:
        return "it has one channel"
    try:
        with _evaluating(trial), _without_advice():
            graph = library.DependencyGraph()
            graph.build_dependency(trial, _on_device(trial, example), forward_fn=forward)
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
            if _shapes(trial, example, forward) != shapes:
                return "the model's output would change its shape"
    except Exception as error:  # noqa: BLE001 (a library of heuristics: any failure is a finding)
        first_line = str(error).splitlines()[:1]
        return f"pruning it fails: {type(error).__name__} {' '.join(first_line)}"
    return ""


@torch.no_grad()
def _shapes(model: nn.Module, example: Mapping[str, Tensor], forward: Forward) -> list[torch.Size]:
    with _evaluating(model):
        return [value.shape for value in flatten(forward(model, _on_device(model, example)))]


def _forward_of(task: Task[Any]) -> Forward:
    def by_position(model: nn.Module, example: Mapping[str, Tensor]) -> Any:
        return model(*example.values())

    def as_mapping(model: nn.Module, example: Mapping[str, Tensor]) -> Any:
        return model(example)

    num_arguments = task.model.forward.__code__.co_argcount - 1
    return as_mapping if num_arguments == 1 < len(task.example()) else by_position


def _evaluate(task: Task[Any], cfg: TrainConfig) -> float | None:
    if cfg.trainer.metric is None:
        return None
    with _evaluating(task.model):
        return task.evaluate("validation")[cfg.trainer.metric]


class _ByName(nn.Module):
    """A model that takes the example's tensors by position, as exporters want it."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], forward: Forward) -> None:
        super().__init__()
        self.model, self._names, self._run = model, names, forward

    def forward(self, *values: Tensor) -> Any:
        return self._run(self.model, dict(zip(self._names, values, strict=True)))


def _export(model: nn.Module, example: Mapping[str, Tensor], forward: Forward, path: Path) -> Path:
    names = tuple(example)
    num_outputs = len(_shapes(model, example, forward))
    outputs = ("output",) if num_outputs == 1 else tuple(f"output_{i}" for i in range(num_outputs))
    with _evaluating(model):
        module = _ByName(copy.deepcopy(model).cpu(), names, forward).eval()
    inputs = {name: value.cpu() for name, value in example.items()}
    export_onnx(Source("pruned", "a pruned model", module, inputs, outputs), path)
    return path


def _on_device(model: nn.Module, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in example.items()}


def _folder(run_dir: Path, number: int) -> Path:
    folder = run_dir / f"round-{number}"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Torch-pruning warns of parameters outside layers; whether they matter is tried here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _library() -> Any:
    try:
        with _without_advice():
            import torch_pruning
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"{missing.name} is not installed; pip install '.[convert]'", name=missing.name
        ) from missing
    return torch_pruning
