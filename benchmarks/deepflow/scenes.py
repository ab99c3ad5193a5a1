"""Scenes of the simulated and replayed tiers, made from measured costs.

Requests of several rows become units: a scene's rows are requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.deepflow import models
from benchmarks.deepflow.costs import BATCHES, Costs
from benchmarks.deepflow.mixes import ALL, MIXES, PHOTOS, STEADY, Mix, Stream
from core.schedule.costs import CostTable
from core.schedule.job import Device, Model
from core.schedule.simulate import Scene

# A made-up device: a run takes its launch and a share of what OpenVINO takes on one core, as
# accelerators do that are far off but fast. No such device was measured.
SYNTHETIC = "synthetic accelerator"
LAUNCH_S, SPEED = 0.002, 12.0
# Of the logarithm of a run's duration: about what a quiet core shows.
NOISE = 0.08
BURST_JOBS = 8.0

RACK = ("ort-fp32", "ort-int8", "openvino", "openvino-bf16")
FLEETS = (
    Mix("rack of eight", RACK * 2, ALL),
    Mix("rack of eight, photos", RACK * 2, PHOTOS),
    Mix(
        "box with an accelerator", (SYNTHETIC, "ort-int8", "openvino", "ort-int8", "openvino"), ALL
    ),
)
HOMOGENEOUS = (
    Mix("four alike, one model", ("openvino",) * 4, (Stream("resnet18", 1.0),)),
    Mix("four alike, small jobs", ("openvino",) * 4, (Stream("lstm", 1.0),)),
)
ALL_SCENES = (*MIXES, *FLEETS)


@dataclass(frozen=True)
class Truth:
    """What batches of requests cost, measured or made up."""

    seconds: Mapping[tuple[str, str], Mapping[int, float]]  # model, kind -> requests -> seconds


def truth(mix: Mix, costs: Costs) -> Truth:
    """Of the pairs of a mix."""
    return Truth(
        {
            (stream.model, kind): _curve(stream, kind, costs)
            for stream in mix.streams
            for kind in mix.counts
        }
    )


def scene(mix: Mix, costs: Costs, most: int | None = None) -> Scene:
    """A mix as the simulator takes it; at most so many requests run together."""
    slo_s = fleet_slo_s(mix, costs)
    table = CostTable("measured on one core each" + " and made up" * (SYNTHETIC in mix.kinds))
    for (model, kind), seconds in truth(mix, costs).seconds.items():
        table.measure(model, kind, seconds)
    return Scene(
        models=[
            Model(s.model, min(most_requests(s), most or most_requests(s)), slo_s=slo_s[s.model])
            for s in mix.streams
        ],
        devices=[Device(device_id(number, kind), kind) for number, kind in enumerate(mix.kinds)],
        truth=table,
        mix=mix.shares,
        arrivals="poisson" if mix.pattern == STEADY else "bursty",
        burst=BURST_JOBS,
        noise=NOISE,
    )


def fleet_slo_s(mix: Mix, costs: Costs) -> dict[str, float]:
    """The mix's SLO; a made-up device does not count for it."""
    measured = tuple(kind for kind in mix.kinds if kind != SYNTHETIC)
    return Mix(mix.name, measured, mix.streams).slo_s(costs)


def device_id(number: int, kind: str) -> str:
    """Names the place and what runs there."""
    return f"{number}: {kind}"


def most_requests(stream: Stream) -> int:
    """In one batch."""
    return models.max_batch(stream.model) // stream.size


def _curve(stream: Stream, kind: str, costs: Costs) -> dict[int, float]:
    sizes = [rows for rows in BATCHES if stream.size <= rows <= models.max_batch(stream.model)]
    if kind == SYNTHETIC:
        alone = costs.typical(stream.model, "openvino", stream.size)
        return {
            rows // stream.size: LAUNCH_S + alone * (rows // stream.size) / SPEED for rows in sizes
        }
    return {rows // stream.size: costs.typical(stream.model, kind, rows) for rows in sizes}
