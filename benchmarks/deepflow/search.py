"""The largest rate that a rule sustains, and its curve on the way there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.deepflow.offer import Outcome


@dataclass(frozen=True)
class Found:
    """A rule on a mix."""

    rate: float  # the largest that was good, interpolated; 0: none was
    outcomes: Sequence[Outcome]  # by rate


def search(
    run: Callable[[float], Outcome], bound: float, loads: Sequence[float], steps: int
) -> Found:
    """Run fixed loads, then halve the interval in which the rule stops being good.

    Between the last good and the first bad rate the share in time is taken as linear, so that the
    result is not a grid point.

    Args:
        run: at a rate.
        bound: the linear program's rate.
        loads: shares of the bound, ascending; all are run, for the curve.
        steps: halvings.
    """
    outcomes = [run(load * bound) for load in loads]
    for _ in range(steps):
        low, high = bracket(outcomes)
        if high is None:
            rate = low.rate * 1.15 if low else bound * loads[0] / 2
        else:
            rate = ((low.rate if low else 0.0) + high.rate) / 2
        outcomes = sorted([*outcomes, run(rate)], key=lambda outcome: outcome.rate)
    return Found(sustained(outcomes), outcomes)


def bracket(outcomes: Sequence[Outcome]) -> tuple[Outcome | None, Outcome | None]:
    """The last good outcome before the first bad one, and that one."""
    low = None
    for outcome in outcomes:
        if not outcome.is_good:
            return low, outcome
        low = outcome
    return low, None


def sustained(outcomes: Sequence[Outcome]) -> float:
    """Where the share in time falls below what is asked."""
    from benchmarks.deepflow.mixes import GOOD_SHARE

    low, high = bracket(outcomes)
    if low is None:
        return 0.0
    if high is None:
        return low.rate
    fall = low.worst_share - high.worst_share
    part = (low.worst_share - GOOD_SHARE) / fall if fall > 0 else 0.0
    return low.rate + part * (high.rate - low.rate)
