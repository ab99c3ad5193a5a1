"""Number formats and compilation of a step, and the measurement that chooses between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Candidate:
    """A way to run a step, and what was measured of it."""

    precision: str
    is_compiled: bool
    step_ms: float = math.inf  # median
    loss: float = math.nan  # mean over the measured steps
    warmup_s: float = 0.0  # of the untimed first steps, with the compilation
    failure: str = ""

    def __str__(self) -> str:
        name = f"{self.precision}{' compiled' if self.is_compiled else ''}"
        if self.failure:
            return f"{name}: cannot run ({self.failure})"
        warmup = f", warm-up {self.warmup_s:.3g} s" if self.is_compiled else ""
        return f"{name}: {self.step_ms:.3g} ms, loss {self.loss:.5g}{warmup}"


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[None]]:
    """Factory of the context that a forward pass runs in."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device.type, DTYPES[precision])


def choose(candidates: list[Candidate], tolerance: float) -> Candidate:
    """The fastest candidate whose loss stays within a relative tolerance of the first one's.

    Raises:
        ValueError: the first candidate, the reference, could not run.
    """
    reference = candidates[0]
    if reference.failure:
        raise ValueError(f"the step does not run: {reference}; mend it before measuring")
    limit = tolerance * max(abs(reference.loss), 1e-12)
    kept = [c for c in candidates if abs(c.loss - reference.loss) <= limit]
    return min(kept or candidates[:1], key=lambda c: c.step_ms)
