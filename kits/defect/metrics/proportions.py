"""Exact bounds of a proportion: what so many hits in so many tries prove."""

from __future__ import annotations

from scipy import stats

CONFIDENCE = 0.95


def lower_bound(hits: int, tries: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson bound: the rate is above it with this confidence.

    Raises:
        ValueError: there are no tries, or more hits than tries.
    """
    _check(hits, tries)
    return 0.0 if hits == 0 else float(stats.beta.ppf(1 - confidence, hits, tries - hits + 1))


def upper_bound(hits: int, tries: int, confidence: float = CONFIDENCE) -> float:
    """The same from above."""
    _check(hits, tries)
    return 1.0 if hits == tries else float(stats.beta.ppf(confidence, hits + 1, tries - hits))


def _check(hits: int, tries: int) -> None:
    if tries < 1 or not 0 <= hits <= tries:
        raise ValueError(f"hits={hits} of tries={tries} is no proportion; count again")
