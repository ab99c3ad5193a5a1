"""Intervals by drawing images again: boxes of one image are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Each = TypeVar("Each")
DRAWS, COVERED = 200, 0.95


def intervals(
    images: Sequence[Each],
    compute: Callable[[Sequence[Each]], dict[str, float]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, float]:
    """`<key>.low` and `<key>.high` of all that `compute` gives, over images drawn with repeats."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        drawn = rng.integers(len(images), size=len(images))
        for key, value in compute([images[k] for k in drawn]).items():
            found.setdefault(key, []).append(value)
    result = {}
    for key, values in found.items():
        low, high = np.quantile(values, [(1 - COVERED) / 2, (1 + COVERED) / 2])
        result |= {f"{key}.low": float(low), f"{key}.high": float(high)}
    return result
