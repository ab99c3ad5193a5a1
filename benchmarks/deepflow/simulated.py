"""Tier (c): the same rules in front of simulated devices, with the costs that were measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.deepflow.contenders import AUTO, CONTENDERS, OURS, Contender, best_settings
from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.decision import decision_cost
from benchmarks.deepflow.mixes import MIXES, STEADY, Mix
from benchmarks.deepflow.results import record
from benchmarks.deepflow.scenes import FLEETS, HOMOGENEOUS, fleet_slo_s, scene
from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Scheduler
from core.schedule.rules import DevicePriority
from core.schedule.simulate import Scene, lp_bound, simulate, sustained_rate

# Offered, as a share of the bound: what is answered in time has to be 90 % of the bound.
LOAD = 0.92
FIXED_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Effort:
    """How much is simulated."""

    search_jobs: int
    seeds: int
    seed_jobs: int


QUICK = Effort(search_jobs=3000, seeds=3, seed_jobs=10_000)
FULL = Effort(search_jobs=20_000, seeds=10, seed_jobs=100_000)


def simulated(console: Console, *, quick: bool) -> None:
    """Run all scenes and write the results."""
    costs, effort = Costs.load(), QUICK if quick else FULL
    # The simulator's bursts are others than the real tier's; only steady mixes are the same.
    mixes = [mix for mix in MIXES if mix.pattern == STEADY]
    rows: list[dict[str, Any]] = []
    for mix in (*FLEETS, *mixes):
        rows.append(_run_scene(mix, costs, effort))
        console.print(_line(rows[-1]))
    for row, mix in zip(rows, FLEETS, strict=False):
        row["seeds"] = _seeds(scene(mix, costs), effort)
        console.print(f"{mix.name}, {effort.seeds} seeds: {row['seeds']}")
    alike = [_homogeneous(mix, costs, effort) for mix in HOMOGENEOUS]
    console.print(*alike)
    decisions = [
        _decisions(mix, costs, effort, has_gc=has_gc)
        for mix in (FLEETS[0], MIXES[0])
        for has_gc in (True, False)
    ]
    for row in decisions:
        console.print(row)
    content = {"is_whole": not quick, "jobs": effort.search_jobs, "scenes": rows, "load": LOAD}
    # Of the fleets: two devices that are busy for 90 % of the time are late by queueing alone.
    content["least_of_bound"] = min(row["rules"][OURS]["of_bound"] for row in rows[: len(FLEETS)])
    content["fleets"] = len(FLEETS)
    record("simulated", content | {"homogeneous": alike, "decisions": decisions})


def _run_scene(mix: Mix, costs: Costs, effort: Effort) -> dict[str, Any]:
    whole = scene(mix, costs)
    bound = lp_bound(whole).rate
    rules = {}
    for name, contender in CONTENDERS.items():
        settings = best_settings(contender, mix, costs)
        # The bound is that of all batches, also where a rule runs one request at a time.
        limited = scene(mix, costs, contender.batch(settings))
        found = sustained_rate(
            _make(contender, settings, whole), limited, num_jobs=effort.search_jobs
        )
        rules[name] = {
            "rate": round(found.rate, 1),
            "of_bound": round(found.rate / bound, 4),
            "settings": [str(value) for value in settings],
        }
    slo_ms = {model: round(s * 1e3, 1) for model, s in fleet_slo_s(mix, costs).items()}
    gain = rules[OURS]["rate"] / rules[AUTO]["rate"] - 1 if rules[AUTO]["rate"] else None
    return {
        "mix": mix.name,
        "kinds": list(mix.kinds),
        "bound": round(bound, 1),
        "rules": rules,
        "gain": None if gain is None else round(gain, 4),
        "slo_ms": slo_ms,
    }


def _make(contender: Contender, settings: Any, whole: Scene) -> Callable[[], Scheduler]:
    return lambda: contender.make(settings, fresh(whole.truth))


def fresh(table: CostTable) -> CostTable:
    """A copy that may go on learning."""
    return CostTable.from_json(table.to_json())


def _seeds(whole: Scene, effort: Effort) -> dict[str, Any]:
    """Ours at a fixed load over seeds: goodput over the bound, and the worst share in time."""
    bound = lp_bound(whole).rate
    outcomes = [
        simulate(
            DeepFlow(fresh(whole.truth)), whole, LOAD * bound, num_jobs=effort.seed_jobs, seed=seed
        )
        for seed in range(effort.seeds)
    ]
    shares = [outcome.goodput / bound for outcome in outcomes]
    return {
        "load": LOAD,
        "jobs": effort.seed_jobs,
        "seeds": effort.seeds,
        "goodput_of_bound": round(float(np.mean(shares)), 4),
        "least": round(min(shares), 4),
        "most": round(max(shares), 4),
        "worst_share": round(min(outcome.attainment for outcome in outcomes), 4),
        "open": sum(outcome.num_open for outcome in outcomes),
    }


def _homogeneous(mix: Mix, costs: Costs, effort: Effort) -> dict[str, Any]:
    """Ours over the best of all fixed batches, on devices that are all alike."""
    whole = scene(mix, costs)
    fixed = {}
    for batch in FIXED_BATCHES:
        limited = replace(
            whole, models=[replace(m, max_batch=min(batch, m.max_batch)) for m in whole.models]
        )
        fixed[batch] = sustained_rate(
            lambda: DevicePriority(max_batch=max(FIXED_BATCHES)),
            limited, num_jobs=effort.search_jobs, precision=0.005,
        ).rate  # fmt: skip
    ours = sustained_rate(
        lambda: DeepFlow(fresh(whole.truth)),
        whole, num_jobs=effort.search_jobs, precision=0.005,
    ).rate  # fmt: skip
    best = max(fixed, key=lambda batch: fixed[batch])
    return {
        "mix": mix.name,
        "kinds": list(mix.kinds),
        "ours": round(ours, 1),
        "fixed": {str(batch): round(rate, 1) for batch, rate in fixed.items()},
        "best_batch": best,
        "over_best": round(ours / fixed[best] - 1, 4),
    }


def _decisions(mix: Mix, costs: Costs, effort: Effort, *, has_gc: bool) -> dict[str, Any]:
    whole = scene(mix, costs)
    rate = LOAD * lp_bound(whole).rate
    scheduler = DeepFlow(fresh(whole.truth))
    found = decision_cost(scheduler, whole, rate, num_jobs=effort.seed_jobs, has_gc=has_gc)
    return {"mix": mix.name, "devices": len(mix.kinds), "models": len(mix.streams), **found}


def _line(row: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {rule['of_bound']:.1%}" for name, rule in row["rules"].items())
    return f"{row['mix']}: bound {row['bound']:.0f}; {told}"
