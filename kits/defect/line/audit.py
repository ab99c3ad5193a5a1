"""How many defects the triage does not show to the detector: estimated while the line runs.

Each block of a frame is drawn with the same known probability, and the detector looks at it whether
the triage asked or not. A defect that touches no flagged cell is an escape; it belongs to the block
of its centre. What is found divided by the probability is an unbiased estimate of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, lgamma, log, log1p


@dataclass
class Audit:
    """Counts of one run."""

    share: float  # probability of a block
    confidence: float = 0.95
    num_parts: int = 0  # inspected
    num_drawn: int = 0  # blocks that were looked at
    num_lost: int = 0  # blocks that were drawn but not looked at: the line had no time
    num_escapes: int = 0  # found in them

    def add(self, drawn: int, lost: int, escapes: int) -> None:
        """A part was inspected."""
        self.num_parts += 1
        self.num_drawn += drawn
        self.num_lost += lost
        self.num_escapes += escapes

    @property
    def probability(self) -> float:
        """Of a block to be drawn and looked at."""
        drawn = self.num_drawn + self.num_lost
        return self.share * (self.num_drawn / drawn if drawn else 1.0)

    def estimate(self) -> tuple[float, float, float] | None:
        """Escapes among the inspected parts: estimate and two-sided limits; None: no audit.

        Of N escapes the audit finds a binomial number with the blocks' probability. The limits are
        the smallest and the largest N for which what was found, or more, or less, is not rarer than
        half of what the confidence leaves. Those found are known, and no longer escapes in truth.
        """
        p, found = self.probability, self.num_escapes
        if p <= 0 or not self.num_drawn:
            return None
        tail = (1 - self.confidence) / 2
        low = _first(found, lambda n: _at_least(found, n, p) >= tail) if found else found
        high = _first(found, lambda n: _at_most(found, n, p) < tail) - 1
        return found / p, float(low), float(high)

    def to_json(self) -> dict[str, object]:
        """For the report; per 1000 parts where there are parts."""
        found = self.estimate()
        per_1000 = None
        if found and self.num_parts:
            per_1000 = [round(1000 * value / self.num_parts, 3) for value in found]
        return {
            "share": self.share,
            "confidence": self.confidence,
            "parts": self.num_parts,
            "blocks": self.num_drawn,
            "lost_blocks": self.num_lost,
            "escapes_found": self.num_escapes,
            "escapes": None if found is None else [round(value, 3) for value in found],
            "escapes_per_1000_parts": per_1000,
        }


def _first(start: int, is_true: Callable[[int], bool]) -> int:
    """The smallest number from `start` on that something is true of, and of all larger ones."""
    step, high = 1, start
    while not is_true(high):
        high = start + step
        step *= 2
    low = start - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_true(middle) else (middle, high)
    return high


def _at_most(k: int, n: int, p: float) -> float:
    """Of a binomial number of n with p, the probability of k or fewer."""
    if k >= n or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    return min(1.0, sum(_probability(at, n, p) for at in range(k + 1)))


def _at_least(k: int, n: int, p: float) -> float:
    return 1.0 if k <= 0 else 0.0 if k > n else 1.0 - _at_most(k - 1, n, p)


def _probability(k: int, n: int, p: float) -> float:
    ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
    return exp(ways + k * log(p) + (n - k) * log1p(-p))
