"""Tier (b): devices that sleep recorded times, behind the real processes, sockets and queues.

What was recorded are the runs of `costs` on this machine's cores. A request's arrays are tiny: what
a device would compute with them is replayed, and two cores carry all the sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from rich.console import Console

from benchmarks.deepflow import models
from benchmarks.deepflow.compare import Effort, compare
from benchmarks.deepflow.contenders import CONTENDERS, OURS
from benchmarks.deepflow.costs import BATCHES, Costs
from benchmarks.deepflow.mixes import ALL, PHOTOS, Mix, Stream
from benchmarks.deepflow.offer import Request
from benchmarks.deepflow.real import describe, gain
from benchmarks.deepflow.results import record
from benchmarks.deepflow.scenes import LAUNCH_S, SPEED, SYNTHETIC, fleet_slo_s, most_requests, scene
from benchmarks.deepflow.stage import Cast, stage
from core.schedule.pool import LoadedModel
from core.schedule.replay import write_recording
from core.schedule.simulate import lp_bound
from edge.manifest import Tensor

ROW = Tensor("x", "float32", ("batch", 1))


@dataclass(frozen=True)
class Fleet:
    """Devices to replay."""

    mix: Mix
    # All times, SLOs too, are so many times longer: two cores dispatch for all devices, and should
    # not be what is measured.
    slower: float


FLEETS = (
    Fleet(Mix("four kinds", ("ort-int8", "openvino-bf16", "openvino", "ort-fp32"), ALL), 3.0),
    Fleet(Mix("photos on four", ("ort-int8", "ort-int8", "openvino", "openvino"), PHOTOS), 3.0),
    Fleet(
        Mix(
            "six with an accelerator",
            (SYNTHETIC, "ort-int8", "ort-int8", "openvino", "openvino", "openvino-bf16"),
            ALL,
        ),
        8.0,
    ),
)
QUICK = Effort(seconds=3.0, halvings=1, loads=(0.6, 0.92))
FULL = Effort(seconds=4.0, halvings=2, loads=(0.4, 0.7, 0.9, 1.0))


def replayed(console: Console, *, quick: bool) -> None:
    """Run the fleets, the quick form one of them, and write the results."""
    costs, effort = Costs.load(), QUICK if quick else FULL
    rows = []
    for fleet in FLEETS[:1] if quick else FLEETS:
        console.print(f"{fleet.mix.name}: {', '.join(fleet.mix.kinds)}")
        rows.append(uvloop.run(_run_fleet(fleet, costs, effort, console)))
        content = {"is_whole": len(rows) == len(FLEETS), "seconds_per_run": effort.seconds}
        record("replayed", content | {"fleets": rows})


async def _run_fleet(
    fleet: Fleet, costs: Costs, effort: Effort, console: Console
) -> dict[str, Any]:
    mix = fleet.mix
    bound = lp_bound(scene(mix, costs)).rate / fleet.slower
    what = cast(fleet, costs, models.WORK / "replayed")
    async with stage(what, costs) as started:
        found = await compare(
            started, bound, CONTENDERS.values(), effort, lambda line: console.print(line)
        )
    rates = {name: row["rate"] for name, row in found["rules"].items()}
    console.print(f"{mix.name}: bound {bound:.0f}, {rates}")
    slo_s = {name: s * fleet.slower for name, s in fleet_slo_s(mix, costs).items()}
    return {
        **describe(mix, slo_s),
        "slower": fleet.slower,
        "bound": round(bound, 1),
        **found,
        "of_bound": round(rates[OURS] / bound, 4),
        "gain": gain(rates),
    }


def cast(fleet: Fleet, costs: Costs, folder: Path) -> Cast:
    """Recordings in place of models; a row is a request."""
    folder.mkdir(parents=True, exist_ok=True)
    mix = fleet.mix
    slo_s = fleet_slo_s(mix, costs)
    files = []
    for stream in mix.streams:
        path = folder / f"{mix.name.replace(' ', '-')}-{stream.model}.json"
        kinds = {kind: _recorded(stream, kind, costs, fleet.slower) for kind in mix.counts}
        shape = LoadedModel(stream.model, "", "", "", {}, inputs=(ROW,), outputs=(ROW,))
        write_recording(path, shape, kinds, "python -m benchmarks.deepflow costs")
        files.append(path)
    row = {"x": np.zeros((1, 1), np.float32)}
    requests = [Request(s.model, row, 1, slo_s[s.model] * fleet.slower) for s in mix.streams]
    rows = [most_requests(stream) for stream in mix.streams]
    return Cast(mix, files, requests, rows, [()] * len(mix.kinds))


def _recorded(stream: Stream, kind: str, costs: Costs, slower: float) -> dict[str, Any]:
    is_made_up = kind == SYNTHETIC
    sizes = [rows for rows in BATCHES if stream.size <= rows <= models.max_batch(stream.model)]
    alone = costs.seconds[stream.model, "openvino" if is_made_up else kind, stream.size]
    seconds: Mapping[str, list[float]] = {
        str(rows // stream.size): [
            slower * run
            for run in (
                [LAUNCH_S + one * (rows // stream.size) / SPEED for one in alone]
                if is_made_up
                else costs.seconds[stream.model, kind, rows]
            )
        ]
        for rows in sizes
    }
    facts = {"backend": "made up" if is_made_up else kind, "runtime": "", "precision": ""}
    return {**facts, "seconds": seconds}
