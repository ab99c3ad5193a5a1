"""Number formats and compilation of a step, and the measurement that chooses between them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from core.train.randomness import random_state, set_random_state

if TYPE_CHECKING:
    from core.train.trainer import Trainer

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
NUM_WARMUP_STEPS = 2


@dataclass(frozen=True)
class Candidate:
    """A way to run a step, and what was measured of it."""

    precision: str
    is_compiled: bool
    step_ms: float | None = None  # median
    loss: float = math.nan  # mean over the timed steps
    warmup_s: float = 0.0  # of the untimed first steps, with the compilation
    failure: str = ""

    def __str__(self) -> str:
        name = f"{self.precision}{' compiled' if self.is_compiled else ''}"
        if self.step_ms is None:
            return f"{name}: cannot run ({self.failure})"
        warmup = f" after {self.warmup_s:.3g} s" if self.is_compiled else ""
        return f"{name}: {self.step_ms:.3g} ms{warmup}, loss {self.loss:.5g}"


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[None]]:
    """Factory of the context that a forward pass runs in."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device.type, DTYPES[precision])


def fastest(candidates: list[Candidate], tolerance: float) -> Candidate:
    """The fastest candidate whose loss stays within a relative tolerance of the first one's.

    Raises:
        ValueError: the first candidate, the reference, could not run.
    """
    reference = candidates[0]
    if reference.step_ms is None:
        raise ValueError(f"the step does not run: {reference}; mend it before measuring")
    limit = tolerance * abs(reference.loss)
    kept = [c for c in candidates[1:] if abs(c.loss - reference.loss) <= limit]
    return min([reference, *kept], key=lambda c: c.step_ms or math.inf)


def choose(trainer: Trainer[Any]) -> tuple[Candidate, list[Candidate]]:
    """What ``trainer.precision`` and ``trainer.compile`` ask for, and what was measured for it.

    Compilation is measured for the chosen precision only: it takes seconds to minutes.
    """
    cfg, measured = trainer.cfg, []
    names = [cfg.precision] if cfg.precision != "auto" else ["fp32", *DTYPES]
    candidates = [Candidate(name, is_compiled=cfg.compile == "on") for name in names]
    if len(candidates) > 1:
        measured = _measure(trainer, candidates)
        candidates = [fastest(measured, cfg.loss_tolerance)]
    if cfg.compile == "auto":
        pair = _measure(trainer, [candidates[0], replace(candidates[0], is_compiled=True)])
        measured, candidates = measured + pair, [fastest(pair, cfg.loss_tolerance)]
    return candidates[0], measured


def _measure(trainer: Trainer[Any], candidates: list[Candidate]) -> list[Candidate]:
    """Train some steps with each candidate; weights, optimiser and random state come back."""
    tensors = [*trainer.model.parameters(), *trainer.model.buffers()]
    copies = [tensor.detach().clone() for tensor in tensors]
    rates, random = trainer.rates(), random_state(trainer.world.device)
    ema, trainer.ema = trainer.ema, None
    measured = []
    for candidate in candidates:
        trainer.use(candidate)
        measured.append(_try(trainer, candidate))
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        trainer.optimizer.zero_grad()
        trainer.optimizer.state.clear()
        trainer.set_rates(rates)
        set_random_state(random, trainer.world.device)
    trainer.ema = ema
    return trainer.world.broadcast(measured)


def _try(trainer: Trainer[Any], candidate: Candidate) -> Candidate:
    times_ms, losses = [], []
    try:
        for parts in islice(trainer.steps(), NUM_WARMUP_STEPS + trainer.cfg.measure_steps):
            start_s = time.perf_counter()
            # Reading the loss waits for the device.
            losses.append(float(trainer.take_step(parts).loss))
            times_ms.append(1000 * (time.perf_counter() - start_s))
    except RuntimeError as error:  # no kernel for the type, no compiler, no memory
        reason = str(error).strip().partition("\n")[0]
        return replace(candidate, step_ms=None, failure=f"{type(error).__name__}: {reason}")
    num_warmup = NUM_WARMUP_STEPS if len(losses) > NUM_WARMUP_STEPS else 0
    return replace(
        candidate,
        step_ms=statistics.median(times_ms[num_warmup:]),
        loss=statistics.fmean(losses[num_warmup:]),
        warmup_s=sum(times_ms[:num_warmup]) / 1000,
    )
