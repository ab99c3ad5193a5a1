"""Arithmetic of the fold that gives the same bits on every machine: number.h in plain Python."""

from __future__ import annotations

import math
from typing import NamedTuple

HALF_LIFE_S = 32 * 86_400
TWO_OVER_LN2 = 2.885390081777927

# (-ln 2)^k / k!: the Taylor series of 2^-f, below 1e-16 relative for f in [0, 1).
EXP2_SERIES = (
    1.0,
    -0.6931471805599453,
    0.2402265069591007,
    -0.05550410866482158,
    0.009618129107628477,
    -0.0013333558146428441,
    0.00015403530393381606,
    -1.5252733804059837e-05,
    1.3215486790144305e-06,
    -1.0178086009239696e-07,
    7.0549116208011225e-09,
    -4.4455382718708110e-10,
    2.5678435993488196e-11,
    -1.3691488853904124e-12,
)


def exp2_negative(x: float) -> float:
    """2^-x for x >= 0; 1 below, 0 from x = 1000 on."""
    if not x < 1000.0:
        return 0.0
    x = max(x, 0.0)
    whole = int(x)
    total = 0.0
    for coefficient in reversed(EXP2_SERIES):
        total = total * (x - whole) + coefficient
    return math.ldexp(total, -whole)


def log2_positive(x: float) -> float:
    """log2(x) for finite x >= 1: exponent + atanh series of the rest, in [sqrt(1/2), sqrt(2))."""
    rest, exponent = math.frexp(x)
    rest, exponent = rest * 2.0, exponent - 1
    if rest > math.sqrt(2.0):
        rest, exponent = rest * 0.5, exponent + 1
    s = (rest - 1.0) / (rest + 1.0)
    total = 0.0
    for k in range(21, 0, -2):
        total = total * (s * s) + 1.0 / k
    return exponent + TWO_OVER_LN2 * (s * total)


class Decay(NamedTuple):
    """What is left of a sum at each half-life, or sums that fade with them."""

    hour: float
    day: float
    days_8: float
    days_32: float


def half_lives(elapsed_s: int) -> float:
    """In half-lives of 32 days."""
    return float(elapsed_s) / float(HALF_LIFE_S)


def decay(elapsed_s: int) -> Decay:
    """One exponential, and squarings for the shorter half-lives."""
    left = [exp2_negative(half_lives(elapsed_s))]  # at 32 days, 16, 8, 4, 2, 1 day, 12 h, 6, 3, 1.5
    for _ in range(9):
        left.append(left[-1] * left[-1])
    # 24 = 16 + 8
    return Decay(hour=left[9] * left[8], day=left[5], days_8=left[2], days_32=left[0])
