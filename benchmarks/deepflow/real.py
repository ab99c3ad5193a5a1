"""Tier (a): real workers on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import uvloop
from rich.console import Console

from benchmarks.deepflow import models
from benchmarks.deepflow.compare import Effort, compare
from benchmarks.deepflow.contenders import ABLATIONS, AUTO, CONTENDERS, OURS
from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.killed import killed_worker
from benchmarks.deepflow.mixes import GOOD_SHARE, MIXES, Mix, bound_rate
from benchmarks.deepflow.openvino_auto import run_openvino_auto
from benchmarks.deepflow.results import record
from benchmarks.deepflow.stage import cast, stage

# A mix that is also run with parts of ours, and with OpenVINO's own AUTO.
TAKEN_APART = ("clinic",)
QUICK = Effort(seconds=2.0, halvings=1, loads=(0.4, 0.8))
FULL = Effort(seconds=4.0, halvings=2)


def real(console: Console, *, quick: bool) -> None:
    """Run all mixes, the quick form two of them, and write the results."""
    costs = Costs.load()
    mixes = [mix for mix in MIXES if not quick or mix.name in TAKEN_APART]
    effort = QUICK if quick else FULL
    for mix in mixes:
        for stream in mix.streams:
            models.bundle(stream.model)
    rows: list[dict[str, Any]] = []
    for number, mix in enumerate(mixes, 1):
        console.print(f"[{number}/{len(mixes)}] {mix.name}: {', '.join(mix.kinds)}")
        rows.append(uvloop.run(_run_mix(mix, costs, effort, console)))
        record("real", _summary(rows, effort, is_whole=number == len(MIXES)))
    killed = uvloop.run(killed_worker(MIXES[0], costs))
    console.print(f"a killed worker: {killed}")
    record("real", _summary(rows, effort, is_whole=not quick) | {"killed_worker": killed})


async def _run_mix(mix: Mix, costs: Costs, effort: Effort, console: Console) -> dict[str, Any]:
    contenders = list(CONTENDERS.values())
    if mix.name in TAKEN_APART:
        contenders += ABLATIONS.values()
    bound = bound_rate(mix, costs)
    async with stage(cast(mix, costs), costs) as started:
        found = await compare(started, bound, contenders, effort, lambda line: console.print(line))
    rates = {name: row["rate"] for name, row in found["rules"].items()}
    console.print(f"{mix.name}: bound {bound:.0f}, {rates}")
    if mix.name in TAKEN_APART:
        found["openvino_auto"] = run_openvino_auto(mix, costs, bound, effort)
        console.print(f"{mix.name}: OpenVINO AUTO itself {found['openvino_auto']['rate']}")
    return {
        **describe(mix, mix.slo_s(costs)),
        "bound": round(bound, 1),
        **found,
        "gain": gain(rates),
    }


def describe(mix: Mix, slo_s: Mapping[str, float]) -> dict[str, Any]:
    """A mix for the results."""
    streams = [
        {
            "model": s.model,
            "share": s.share,
            "size": s.size,
            "slo_ms": round(slo_s[s.model] * 1e3, 1),
        }
        for s in mix.streams
    ]
    pattern = [list(part) for part in mix.pattern]
    return {"mix": mix.name, "kinds": list(mix.kinds), "streams": streams, "pattern": pattern}


def gain(rates: dict[str, float]) -> float | None:
    """Of ours over AUTO's rule, as a share; None: AUTO's rule sustained nothing."""
    return round(rates[OURS] / rates[AUTO] - 1, 4) if rates[AUTO] else None


def _summary(rows: list[dict[str, Any]], effort: Effort, *, is_whole: bool) -> dict[str, Any]:
    gains = [row["gain"] for row in rows if row["gain"] is not None]
    return {
        "is_whole": is_whole,
        "seconds_per_run": effort.seconds,
        "good_share": GOOD_SHARE,
        "median_gain": round(statistics.median(gains), 4) if gains else None,
        "worst_gain": min(gains, default=None),
        "has_peer": any("openvino_auto" in row for row in rows),
        "mixes": rows,
    }
