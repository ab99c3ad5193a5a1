"""The optimiser, the learning-rate schedule, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LinearLR,
    LRScheduler,
    SequentialLR,
)
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.train.config import OptimConfig

# Where torch has single-kernel AdamW and SGD; elsewhere it picks its own fastest loop.
FUSED_DEVICES = ("cpu", "cuda", "xpu")


def build_optimizer(model: nn.Module, cfg: OptimConfig) -> Optimizer:
    """AdamW or SGD over the parameters that ask for gradients.

    Raises:
        ValueError: no parameter does.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has 0 trainable parameters; unfreeze some")
    # Decay pulls weights towards zero; biases and norm scales have no reason to be there.
    decayed = [p for p in parameters if p.ndim >= 2]
    plain = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": cfg.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)
    if cfg.name == "sgd":
        return SGD(groups, lr=cfg.lr, momentum=cfg.momentum, fused=fused or None)
    return AdamW(groups, lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), fused=fused or None)


def build_schedule(optimizer: Optimizer, cfg: OptimConfig, num_steps: int | None) -> LRScheduler:
    """The learning rate by step: linear warm-up, then the configured schedule.

    Args:
        optimizer: whose learning rates are set.
        cfg: names the schedule.
        num_steps: optimiser steps of the whole run; None when nobody knows.
    Raises:
        ValueError: the schedule needs to know the end, or the warm-up reaches past it.
    """
    lowest = cfg.lr * cfg.min_lr_share
    main: LRScheduler
    if cfg.schedule == "cosine":
        if num_steps is None:
            raise ValueError(
                "optim.schedule='cosine' needs the number of steps, and the training batches have "
                "no length; set trainer.max_steps or optim.schedule=constant"
            )
        if cfg.warmup_steps >= num_steps:
            raise ValueError(
                f"optim.warmup_steps={cfg.warmup_steps} is not below the run's {num_steps} steps; "
                "set optim.warmup_steps"
            )
        main = CosineAnnealingLR(optimizer, T_max=num_steps - cfg.warmup_steps, eta_min=lowest)
    elif cfg.schedule == "warm_restarts":
        main = CosineAnnealingWarmRestarts(
            optimizer, T_0=cfg.restart_steps, T_mult=cfg.restart_factor, eta_min=lowest
        )
    else:
        main = ConstantLR(optimizer, factor=1.0, total_iters=0)
    if cfg.warmup_steps == 0:
        return main
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=cfg.warmup_steps)
    return SequentialLR(optimizer, [warmup, main], milestones=[cfg.warmup_steps])


class Ema:
    """Exponential moving average of a model's parameters; buffers stay the model's own."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the present parameters."""
        self._parameters = dict(model.named_parameters())
        self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Average the present parameters in."""
        self._update(list(self.weights.values()), list(self._parameters.values()), 0)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights; after, exactly its own again."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._copy(self.weights)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
