"""Intervals from resampled patients: nodules of one patient stay together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

REPLICATES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """The middle 95 % of the replicates."""

    low: float
    high: float


def patient_counts(
    patients: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How often each patient is in each replicate.

    Args:
        patients: of each row of a table.
        replicates: how many.
        seed: the same seed draws the same patients.
    Returns:
        (n,) the number of each row's patient, and (replicates, patients) counts.
    """
    names, number = np.unique(np.asarray(patients), return_inverse=True)
    generator = np.random.default_rng(seed)
    chances = np.full(len(names), 1 / len(names))
    return number.reshape(-1), generator.multinomial(len(names), chances, size=replicates)


def ratio_interval(
    patients: Sequence[str], numerator: np.ndarray, denominator: np.ndarray, *, seed: int = 0
) -> Interval:
    """Interval of sum(numerator) / sum(denominator); a mean has ones below.

    Replicates whose denominator is 0 say nothing and are left out.
    """
    number, counts = patient_counts(patients, seed=seed)
    size = counts.shape[1]
    above = counts @ np.bincount(number, weights=numerator, minlength=size)
    below = counts @ np.bincount(number, weights=denominator, minlength=size)
    return percentiles(above[below > 0] / below[below > 0])


def percentiles(values: np.ndarray) -> Interval:
    """The middle 95 % of values; there is at least one."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
