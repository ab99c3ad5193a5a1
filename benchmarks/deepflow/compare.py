"""Rules on one mix, in turns at each load, and the largest rate that each sustains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.deepflow.contenders import AUTO, OURS, Contender, best_settings
from benchmarks.deepflow.mixes import GOOD_SHARE
from benchmarks.deepflow.offer import Outcome
from benchmarks.deepflow.stage import Stage

# Shares of the bound that all rules run, for the curves.
LOADS = (0.3, 0.5, 0.7, 0.9)
# A rule that was in time this rarely is not run at higher loads.
HOPELESS = 0.2
# Of a chart of who computed what when.
CHART_FROM_S, CHART_S = 1.0, 0.5


@dataclass(frozen=True)
class Effort:
    """How long it may take."""

    seconds: float  # of a run
    halvings: int  # of the interval in which a rule stops being good
    loads: Sequence[float] = LOADS

    def runs(self, num_contenders: int) -> int:
        """Of one mix, with the two of the chart."""
        return num_contenders * (len(self.loads) + self.halvings) + 2


async def compare(
    stage: Stage,
    bound: float,
    contenders: Iterable[Contender],
    effort: Effort,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Run all rules; rows for the results.

    Each load is run by all rules before the next one, so that what disturbs the machine for a
    while disturbs all.

    Args:
        stage: workers that are up.
        bound: the linear program's rate.
        contenders: the rules.
        effort: how many runs, how long.
        tell: called with a line after each run.
    """
    outcomes: dict[str, list[Outcome]] = {contender.name: [] for contender in contenders}
    rules = {contender.name: contender for contender in contenders}

    async def run(name: str, rate: float) -> None:
        outcome = await stage.run(rules[name], rate, effort.seconds)
        outcomes[name] = sorted([*outcomes[name], outcome], key=lambda run: run.rate)
        tell(
            f"{stage.cast.mix.name}: {name} at {rate / bound:.2f} of the bound: "
            f"{outcome.worst_share:.1%} in time"
        )

    for load in effort.loads:
        for name in rules:
            if not outcomes[name] or outcomes[name][-1].worst_share >= HOPELESS:
                await run(name, load * bound)
    for _ in range(effort.halvings):
        for name in rules:
            await run(name, next_rate(outcomes[name], bound))
    rows = {
        name: {
            "settings": [str(value) for value in _settings(stage, rule)],
            "rate": round(sustained(outcomes[name]), 1),
            "runs": [outcome.summary() for outcome in outcomes[name]],
        }
        for name, rule in rules.items()
    }
    return {"rules": rows, "chart": await _charts(stage, rules, outcomes)}


def _settings(stage: Stage, rule: Contender) -> tuple[object, ...]:
    return best_settings(rule, stage.cast.mix, stage.costs)


def next_rate(outcomes: Sequence[Outcome], bound: float) -> float:
    """Halfway between the largest good rate and the bad one above it."""
    low, high = bracket(outcomes)
    if high is None:
        return low.rate * 1.1 if low else bound / 2
    return ((low.rate if low else 0.0) + high.rate) / 2


def bracket(outcomes: Sequence[Outcome]) -> tuple[Outcome | None, Outcome | None]:
    """The run with the largest good rate, and the bad one above it.

    A bad run below a good one is no end of what a rule sustains: the machine may be disturbed.
    """
    low = max(
        (outcome for outcome in outcomes if outcome.worst_share >= GOOD_SHARE),
        key=lambda outcome: outcome.rate,
        default=None,
    )
    above = [outcome for outcome in outcomes if low is None or outcome.rate > low.rate]
    return low, above[0] if above else None


def sustained(outcomes: Sequence[Outcome]) -> float:
    """The rate at which the share in time falls below what is asked, as a line between runs."""
    low, high = bracket(outcomes)
    if low is None:
        return 0.0
    if high is None:
        return low.rate
    fall = low.worst_share - high.worst_share
    return low.rate + (low.worst_share - GOOD_SHARE) / fall * (high.rate - low.rate)


async def _charts(
    stage: Stage, rules: dict[str, Contender], outcomes: dict[str, list[Outcome]]
) -> dict[str, Any]:
    """Ours and AUTO's rule at the same arrivals, halfway between what each sustains."""
    rate = (sustained(outcomes[OURS]) + sustained(outcomes[AUTO])) / 2
    rate = rate or outcomes[OURS][0].rate
    chart: dict[str, Any] = {"rate": round(rate, 1), "from_s": CHART_FROM_S, "seconds": CHART_S}
    for name in (AUTO, OURS):
        outcome = await stage.run(rules[name], rate, CHART_FROM_S + 2 * CHART_S)
        end = CHART_FROM_S + CHART_S
        chart[name] = {
            "goodput": round(outcome.goodput, 1),
            "spans": [
                [s.worker, s.model, round(s.start_s, 4), round(s.end_s, 4), s.rows]
                for s in outcome.spans
                if s.end_s > CHART_FROM_S and s.start_s < end
            ],
            "misses": [
                [round(at, 4), model] for at, model in outcome.misses if CHART_FROM_S <= at < end
            ],
        }
    return chart
