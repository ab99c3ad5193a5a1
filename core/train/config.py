"""What a training run may be told. Dataclasses only: no torch, so that ``--help`` stays quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def _check(group: str, cfg: Any, rules: dict[str, tuple[str, Callable[[Any], bool]]]) -> None:
    for names, (rule, is_kept) in rules.items():
        for name in names.split():
            value = getattr(cfg, name)
            if value is not None and not is_kept(value):
                raise ValueError(f"{group}.{name}={value!r} is not {rule}; set {group}.{name}")


def _one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(names)}", lambda value: value in names


POSITIVE = ("positive", lambda value: value > 0)
NOT_NEGATIVE = ("0 or more", lambda value: value >= 0)
COUNT = ("1 or more", lambda value: value >= 1)


@dataclass
class OptimConfig:
    """The optimiser, its learning-rate schedule, and what happens to gradients and weights."""

    # adamw or sgd; the fused kernel is used where the device has one.
    name: str = "adamw"
    # Peak learning rate, reached at the end of the warm-up.
    lr: float = 1e-3
    # Decoupled weight decay for adamw, L2 for sgd; matrices only, never biases and norms.
    weight_decay: float = 0.01
    # adamw: decay of the running mean of gradients, and of their squares.
    beta1: float = 0.9
    beta2: float = 0.999
    # sgd: momentum.
    momentum: float = 0.9
    # cosine (one half wave to the end), warm_restarts (cosine waves), or constant.
    schedule: str = "cosine"
    # Steps of linear warm-up from lr / 100, before any schedule; 0 for none.
    warmup_steps: int = 0
    # Lowest learning rate of the cosine schedules, as a share of lr.
    min_lr_share: float = 0.0
    # warm_restarts: steps of the first wave (T_0), and growth of each next one (T_mult).
    restart_steps: int = 1000
    restart_factor: int = 1
    # Gradients are scaled down to this norm (over all parameters); null does not clip.
    clip_norm: float | None = 1.0
    # Decay per step of an exponential moving average of the weights, which then is what gets
    # evaluated and kept; null for none.
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        """Check names and ranges."""
        rules = {
            "name": _one_of("adamw", "sgd"),
            "schedule": _one_of("cosine", "warm_restarts", "constant"),
            "lr clip_norm": POSITIVE,
            "weight_decay warmup_steps": NOT_NEGATIVE,
            "restart_steps restart_factor": COUNT,
            "beta1 beta2 momentum": ("in [0, 1)", lambda value: 0 <= value < 1),
            "min_lr_share": ("in [0, 1]", lambda value: 0 <= value <= 1),
            "ema_decay": ("in (0, 1)", lambda value: 0 < value < 1),
        }
        _check("optim", self, rules)


@dataclass
class TrainerConfig:
    """The loop around the optimiser: how long, on what, and what is written down."""

    # Seeds python, numpy, torch and the order of the samples.
    seed: int = 0
    # A run shrunk to seconds; kits shrink their data when they see it.
    smoke: bool = False
    # New runs go to <runs_dir>/<kit>/<UTC time>.
    runs_dir: str = "runs"
    # Continue the run in this directory from its last checkpoint; null starts a new one.
    run_dir: str | None = None
    # Passes over the training split.
    epochs: int = 1
    # Stop after this many optimiser steps, whatever epochs says; null for no limit.
    max_steps: int | None = None
    # Batches whose gradients are summed into one optimiser step.
    accumulate: int = 1
    # auto takes the accelerator that torch finds, else the CPU; npu is Ascend.
    device: str = "auto"
    # Threads of one torch operation; null leaves torch's choice.
    num_threads: int | None = None
    # Under torchrun: ddp (weights on every rank) or fsdp (weights sharded, FSDP2).
    parallel: str = "ddp"
    # fp32, bf16 or fp16 autocast; auto measures each and takes the fastest that keeps the loss.
    precision: str = "fp32"
    # torch.compile: off, on, or auto (measured, and kept when faster).
    compile: str = "off"
    # Measured choices: steps timed for each candidate (two more warm up).
    measure_steps: int = 10
    # Measured choices: largest relative change of the mean loss over those steps.
    loss_tolerance: float = 0.01
    # Ask torch for deterministic kernels where it has them.
    deterministic: bool = True
    # Evaluate the validation split every so many steps; null: at the end of each epoch.
    evaluate_every_steps: int | None = None
    # Which of task.evaluate()'s numbers names the best checkpoint, and which way is better;
    # null evaluates nothing, and the last checkpoint is the best.
    metric: str | None = "loss"
    metric_mode: str = "min"
    # Stop after this many evaluations without a better metric; null never does.
    patience: int | None = None
    # Save every so many steps, besides at each evaluation and at the end; null does not. A save
    # takes some 0.1 s.
    checkpoint_every_steps: int | None = None
    # Checkpoints kept, newest first; the best one is kept besides.
    keep_checkpoints: int = 2
    # Means of loss, logs and speed go to the bar and to TensorBoard every so many steps.
    log_every_steps: int = 50
    # Write TensorBoard events to <run>/tensorboard.
    tensorboard: bool = True
    # Show a progress bar (a line now and then where there is no terminal).
    progress: bool = True

    def __post_init__(self) -> None:
        """Check names, ranges and pairs of values."""
        rules = {
            "device": _one_of("auto", "cpu", "cuda", "npu"),
            "parallel": _one_of("ddp", "fsdp"),
            "precision": _one_of("fp32", "bf16", "fp16", "auto"),
            "compile": _one_of("off", "on", "auto"),
            "metric_mode": _one_of("max", "min"),
            "seed": NOT_NEGATIVE,
            "loss_tolerance": POSITIVE,
            "epochs accumulate measure_steps keep_checkpoints log_every_steps": COUNT,
            "max_steps num_threads evaluate_every_steps checkpoint_every_steps patience": COUNT,
        }
        _check("trainer", self, rules)
        if self.patience is not None and self.metric is None:
            raise ValueError(
                f"trainer.patience={self.patience} has no metric to wait for; set trainer.metric"
            )


@dataclass
class TrainConfig:
    """What every kit's train config extends by its own ``data`` and ``model``."""

    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
