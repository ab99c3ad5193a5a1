"""Whole channels out of a model, down to a share of its FLOPs, and training to make up for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from core.compress.config import PruneConfig
from core.compress.measure import Compression, compare_models
from core.compress.trial import (
    Forward,
    count_module_flops,
    evaluating,
    kept_modules,
    on_device,
    output_shapes,
    pruning_library,
    without_advice,
)
from core.convert.export import export_onnx
from core.convert.source import Source
from core.kit import Task
from core.train.config import TrainConfig
from core.train.run import write_atomic
from core.train.trainer import Trainer

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
    kept = kept_modules(model, example, forward, cfg)
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
    library = pruning_library()
    with evaluating(model), without_advice():
        return library.pruner.BasePruner(
            model,
            on_device(model, example),
            importance=library.importance.GroupMagnitudeImportance(p=cfg.norm),
            global_pruning=True,
            pruning_ratio=cfg.max_layer_share,
            max_pruning_ratio=cfg.max_layer_share,
            iterative_steps=NUM_STEPS,
            ignored_layers=kept,
            round_to=cfg.round_to if cfg.round_to > 1 else None,
            forward_fn=forward,
        )


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
    with evaluating(task.model):
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
    num_outputs = len(output_shapes(model, example, forward))
    outputs = ("output",) if num_outputs == 1 else tuple(f"output_{i}" for i in range(num_outputs))
    with evaluating(model):
        module = _ByName(copy.deepcopy(model).cpu(), names, forward).eval()
    inputs = {name: value.cpu() for name, value in example.items()}
    export_onnx(Source("pruned", "a pruned model", module, inputs, outputs), path)
    return path


def _folder(run_dir: Path, number: int) -> Path:
    folder = run_dir / f"round-{number}"
    folder.mkdir(exist_ok=True)
    return folder
