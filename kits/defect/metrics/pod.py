"""Probability of detection against size: a logistic curve in the logarithm of size.

a90 is the size that is found nine times in ten; a90/95 the size of which that is certain to 95 %,
from the curve's lower confidence band (MIL-HDBK-1823A).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

WANTED, CONFIDENCE = 0.9, 0.95
LEAST = 10  # hits and misses together
STEPS = 60
STEEPEST = 60.0  # a larger slope is a step, of which the data say no width


@dataclass(frozen=True)
class Curve:
    """log-odds of a hit = intercept + slope * ln(size)."""

    intercept: float
    slope: float
    covariance: np.ndarray  # (2, 2)

    def probability(self, size: np.ndarray) -> np.ndarray:
        """Of a hit."""
        return _logistic(self.intercept + self.slope * np.log(size))

    def lower(self, size: np.ndarray) -> np.ndarray:
        """The band's lower edge."""
        x = np.stack([np.ones_like(size), np.log(size)], -1)
        spread = np.sqrt(np.einsum("...i,ij,...j->...", x, self.covariance, x))
        centre = self.intercept + self.slope * np.log(size)
        return _logistic(centre - stats.norm.ppf(CONFIDENCE) * spread)


def fit(sizes: Sequence[float], is_hit: Sequence[bool]) -> Curve | None:
    """Maximum likelihood; None where hits and misses do not tell a curve.

    Args:
        sizes: of each defect, positive, in mm.
        is_hit: whether it was found.
    """
    size, hit = np.asarray(sizes, float), np.asarray(is_hit, bool)
    if len(size) < LEAST or hit.all() or not hit.any() or size.min() == size.max():
        return None
    x = np.stack([np.ones_like(size), np.log(size)], 1)
    beta = np.zeros(2)
    for _ in range(STEPS):
        p = _logistic(x @ beta)
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (hit - p))
        beta = beta + step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < 1e-9:
            break
    if not 0 < beta[1] < STEEPEST:
        return None
    return Curve(float(beta[0]), float(beta[1]), np.linalg.inv(hessian))


def pod_metrics(sizes: Sequence[float], is_hit: Sequence[bool]) -> dict[str, float]:
    """`a90` and `a90_95`, where they lie among the sizes that were seen."""
    curve = fit(sizes, is_hit)
    if curve is None:
        return {}
    a90 = math.exp((math.log(WANTED / (1 - WANTED)) - curve.intercept) / curve.slope)
    largest = max(sizes)
    if a90 > largest:
        return {}
    result = {"a90": a90}

    def missing(log_size: float) -> float:
        return float(curve.lower(np.array(math.exp(log_size)))) - WANTED

    # The band may bend down again far from the data: the first crossing counts.
    grid = np.linspace(math.log(a90), math.log(largest), 400)
    above = [k for k, each in enumerate(grid) if missing(each) >= 0]
    if above:
        first = above[0]
        low = grid[max(first - 1, 0)]
        crossing = optimize.brentq(missing, low, grid[first]) if first else grid[0]
        result["a90_95"] = math.exp(crossing)
    return result


def _logistic(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result
