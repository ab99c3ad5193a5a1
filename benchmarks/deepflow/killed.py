"""A worker is killed while it computes: what is lost, and how long until work goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from math import inf
from typing import Any

from benchmarks.deepflow.contenders import CONTENDERS, OURS
from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.mixes import Mix, arrivals, bound_rate
from benchmarks.deepflow.offer import key
from benchmarks.deepflow.stage import Stage, cast, stage
from core.schedule.job import Batch

LOAD = 0.3  # of the bound: what the worker that is left can do as well
SECONDS, KILL_AFTER_S = 6.0, 2.0
# Until the dead worker is back, and all is answered.
PATIENCE_S = 60.0


async def killed_worker(mix: Mix, costs: Costs) -> dict[str, Any]:
    """Kill the first worker with SIGKILL in the middle of a run; all must be answered.

    Returns:
        requests offered, answered and lost; the time from the kill until the scheduler had queued
        the dead worker's jobs again and planned without it, until the next batch was started, and
        until the worker that replaced it took jobs.
    """
    async with stage(cast(mix, costs), costs) as started:
        return await _run(started, mix, LOAD * bound_rate(mix, costs))


async def _run(started: Stage, mix: Mix, rate: float) -> dict[str, Any]:
    times: dict[str, float] = {}
    victim = next(iter(started.pool.workers))

    def dispatched(batches: Sequence[Batch], now: float) -> None:
        if "dropped" in times and batches:
            times.setdefault("next_batch", now)

    def dropped(_: str, now: float) -> None:
        times.setdefault("dropped", now)

    started.put(CONTENDERS[OURS])
    started.switch.on_drop, started.switch.on_dispatch = dropped, dispatched
    asked = arrivals(mix, rate, SECONDS, seed=7)
    requests = started.cast.requests
    start = time.monotonic()
    tasks = []
    for at, index in zip(asked.times_s.tolist(), asked.stream.tolist(), strict=True):
        if at >= KILL_AFTER_S and "killed" not in times:
            times["killed"] = time.monotonic()
            os.kill(started.pool.processes[victim], signal.SIGKILL)
        await asyncio.sleep(max(0.0, start + at - time.monotonic()))
        request = requests[index]
        job = started.pool.run(
            key(request.model),
            request.inputs,
            size=request.rows,
            deadline_s=inf,  # that nothing is lost is the question, not how late it is
        )
        tasks.append(asyncio.create_task(job))
        if "dropped" in times and victim in started.pool.workers:
            times.setdefault("back", time.monotonic())
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    while "back" not in times and time.monotonic() < start + PATIENCE_S:
        await asyncio.sleep(0.01)
        if victim in started.pool.workers:
            times["back"] = time.monotonic()
    failed = [str(answer) for answer in answers if isinstance(answer, BaseException)]
    row: dict[str, Any] = {"mix": mix.name, "offered": len(tasks), "lost": len(failed)}
    row["failures"] = failed[:3]
    for name in ("dropped", "next_batch", "back"):
        row[f"{name}_ms"] = round((times[name] - times["killed"]) * 1e3, 1)
    return row
