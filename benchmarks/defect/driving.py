"""Drives a station as a line does: triggers at their time, whatever becomes of them."""

from __future__ import annotations

import asyncio
import itertools
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from kits.defect.line.detect import DetectorConfig
from kits.defect.line.ledger import count_states, verify
from kits.defect.line.station import LEDGER, CameraConfig, Station, StationConfig
from kits.defect.line.tally import shorten
from kits.defect.line.verdict import Verdict

NUM_WINDOWS = 3  # a run is cut into these, so that its spread is seen
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Drive:
    """A run of the line."""

    frames: Path
    recipe: Path
    detector: Path
    num_cameras: int = 8
    fps: float = 4.0
    seconds: float = 20.0
    warm_s: float = 3.0  # before what counts
    workers: int = 2
    triage_workers: int = 1
    slots: int = 4
    settings: dict[str, Any] = field(default_factory=dict)  # of the station


@dataclass
class Driven:
    """What became of it."""

    verdicts: list[Verdict]
    due_s: list[float]
    told_s: list[float]
    start_s: float  # of what counts
    seconds: float
    num_triggers: int  # of all, those before the start included
    ledger: dict[str, int]  # states of all
    cpu_s: float  # of the line's processes, while it counts
    audit: dict[str, Any]
    alarms: int
    tiles: int
    flagged_share: float


def drive(plan: Drive) -> Driven:
    """Run a line in a folder of its own, which is removed; its ledger is verified before."""
    folder = Path(tempfile.mkdtemp(prefix="deepkits-line-"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_drive(plan, folder))
    finally:
        shutil.rmtree(folder)


async def _drive(plan: Drive, folder: Path) -> Driven:
    told_s: dict[int, float] = {}
    cameras = [
        CameraConfig(
            f"camera-{number + 1}",
            {"kind": "memory", "path": str(plan.frames), "first": 5 * number},
            plan.recipe,
        )
        for number in range(plan.num_cameras)
    ]
    detector = DetectorConfig(workers=plan.workers)
    station = Station(
        StationConfig(
            slots=plan.slots,
            detector=detector,
            triage_workers=plan.triage_workers,
            max_pictures=200,
            **plan.settings,
        ),
        cameras,
        plan.detector,
        folder,
        on_verdict=lambda verdict: told_s.setdefault(verdict.trigger, time.monotonic()),
    )
    await station.start()
    try:
        start_s, due, tasks, cpu = await _feed(plan, station)
        verdicts = await asyncio.gather(*tasks)
        used_s = _cpu_s(station) - cpu
        tally = station.tally
        looked = sum(camera.num_looked * camera.flagged.size for camera in tally.cameras.values())
    finally:
        await station.stop()
    verify(folder / LEDGER)
    counted = [at for at, due_s in enumerate(due) if due_s >= start_s]
    return Driven(
        verdicts=[verdicts[at] for at in counted],
        due_s=[due[at] for at in counted],
        told_s=[told_s[verdicts[at].trigger] for at in counted],
        start_s=start_s,
        seconds=plan.seconds,
        num_triggers=len(verdicts),
        ledger=count_states(folder / LEDGER),
        cpu_s=used_s,
        audit=station.audit.to_json(),
        alarms=len(station.alarms.told),
        tiles=tally.tiles,
        flagged_share=tally.cells / max(1, looked),
    )


async def _feed(
    plan: Drive, station: Station
) -> tuple[float, list[float], list[asyncio.Task[Verdict]], float]:
    begin_s = time.monotonic() + 0.1
    start_s, cpu = begin_s + plan.warm_s, 0.0
    total = int((plan.warm_s + plan.seconds) * plan.fps * plan.num_cameras)
    due: list[float] = []
    tasks: list[asyncio.Task[Verdict]] = []
    for number in range(total):
        # Cameras along a line: one after the other, evenly.
        due_s = begin_s + number / (plan.fps * plan.num_cameras)
        await asyncio.sleep(due_s - time.monotonic())
        if not cpu and due_s >= start_s:
            cpu = _cpu_s(station)
        due.append(due_s)
        tasks.append(station.trigger(number % plan.num_cameras, due_s))
    return start_s, due, tasks, cpu


def _cpu_s(station: Station) -> float:
    """Of this process and all that belong to the line."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for pid in station.processes.values():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / 100
    return total


def latency_ms(driven: Driven) -> np.ndarray:
    """From when a part was due to when its verdict was told."""
    return 1e3 * (np.array(driven.told_s) - np.array(driven.due_s))


def summarise(plan: Drive, driven: Driven) -> dict[str, Any]:
    """What is written down of a run."""
    states = Counter(verdict.state for verdict in driven.verdicts)
    latency, due = latency_ms(driven), np.array(driven.due_s)
    edges = driven.start_s + np.linspace(0, driven.seconds, NUM_WINDOWS + 1)
    windows = [
        quantiles(latency[(due >= low) & (due < high)]) for low, high in itertools.pairwise(edges)
    ]
    stages = ("captured", "triaged", "detected", "decided")
    ends = {stage: [v.times_ms[stage] for v in driven.verdicts if stage in v.times_ms]
            for stage in stages}  # fmt: skip
    return {
        "cameras": plan.num_cameras,
        "asked_fps": plan.fps,
        "seconds": plan.seconds,
        "triggers": driven.num_triggers,
        "unaccounted": driven.num_triggers - sum(driven.ledger.values())
        + driven.ledger.get("PENDING", 0),
        "states": dict(states),
        "reasons": dict(
            Counter(shorten(v.reason) for v in driven.verdicts if v.state == "UNINSPECTED")
        ),
        "inspected_fps": round(
            (states["OK"] + states["NG"]) / driven.seconds / plan.num_cameras, 3
        ),
        "latency_ms": quantiles(latency),
        "windows": windows,
        "until_ms": {stage: quantiles(np.array(values)) for stage, values in ends.items()},
        "cores_used": round(driven.cpu_s / driven.seconds, 3),
        "tiles_per_part": round(driven.tiles / max(1, driven.num_triggers), 3),
        "flagged_share": round(driven.flagged_share, 5),
        "audit": driven.audit,
        "alarms": driven.alarms,
        "workers": plan.workers,
        "triage_workers": plan.triage_workers,
    }  # fmt: skip


def quantiles(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Of some times."""
    if not len(values):
        return {}
    found = np.quantile(np.asarray(values), list(QUANTILES.values())).round(3)
    return dict(zip(QUANTILES, found.tolist(), strict=True))
