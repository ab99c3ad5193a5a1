"""Tier (a): worker processes, each pinned to a core of its own, one thread each.

The generator and the dispatcher are one more process, which shares the workers' cores: what they
take of them is missing from what is measured, for every rule alike.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.deepflow import models
from benchmarks.deepflow.contenders import Contender
from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.mixes import Mix, arrivals
from benchmarks.deepflow.offer import Outcome, Recorder, Request, key, offer
from core.schedule.costs import CostTable
from core.schedule.job import Model
from core.schedule.pool import LoadedModel, Pool, WorkerSpec

WARM_UP_S = 1.0


@dataclass(frozen=True)
class Cast:
    """What a pool serves for a mix: of each stream its file, a request and the rows of a batch."""

    mix: Mix
    files: Sequence[Path]
    requests: Sequence[Request]
    max_rows: Sequence[int]
    cores: Sequence[tuple[int, ...]]  # of each worker


def cast(mix: Mix, costs: Costs) -> Cast:
    """Of real workers: the bundles; costs decide the SLOs."""
    slo_s = mix.slo_s(costs)
    files = [models.bundle(stream.model) for stream in mix.streams]
    requests = [
        Request(s.model, models.inputs_of(s.model, s.size), s.size, slo_s[s.model])
        for s in mix.streams
    ]
    rows = [models.max_batch(stream.model) for stream in mix.streams]
    available = sorted(os.sched_getaffinity(0))
    cores = [(available[number % len(available)],) for number in range(len(mix.kinds))]
    return Cast(mix, files, requests, rows, cores)


class Stage:
    """Workers of a mix under one rule."""

    def __init__(self, what: Cast, pool: Pool, recorder: Recorder) -> None:
        self.cast, self.pool, self.recorder = what, pool, recorder

    async def run(self, rate: float, seconds: float, seed: int = 0) -> Outcome:
        """Offer a rate for a while."""
        return await offer(
            self.pool,
            self.cast.requests,
            arrivals(self.cast.mix, rate, seconds, seed),
            rate=rate,
            seconds=seconds,
            recorder=self.recorder,
        )


@asynccontextmanager
async def stage(what: Cast, contender: Contender, costs: Costs) -> AsyncIterator[Stage]:
    """Start the workers of a mix with all models, and end them afterwards.

    The rule gets the costs that the workers measured while they loaded.
    """
    os.environ["DEEPKITS_HOME"] = str(models.KEYS)
    table = CostTable("measured by the workers when they loaded the models")
    recorder = Recorder()

    def learn(spec: WorkerSpec, loaded: LoadedModel) -> None:
        if loaded.seconds:
            table.measure(loaded.key, spec.kind, loaded.seconds)

    rule = contender.make(what.mix, costs, table)
    pool = Pool(rule, on_batch=recorder.batch, on_loaded=learn)
    try:
        for number, kind in enumerate(what.mix.kinds):
            spec = WorkerSpec(worker_id(number, kind), kind, 1, what.cores[number], target=kind)
            await pool.start_worker(spec)
        for request, file, rows in zip(what.requests, what.files, what.max_rows, strict=True):
            model = Model(key(request.model), rows, slo_s=request.slo_s)
            await pool.load(model, file, "")
        started = Stage(what, pool, recorder)
        # A few of each, so that nothing is used for the first time while it counts.
        await started.run(30.0, WARM_UP_S, seed=99)
        yield started
    finally:
        await pool.close()


def worker_id(number: int, kind: str) -> str:
    """Names the core and what runs on it."""
    return f"{number}: {kind}"


def busy_shares(outcome: Outcome) -> dict[str, float]:
    """How much of its time each worker computed."""
    workers = sorted({span.worker for span in outcome.spans})
    return {
        worker: round(
            float(np.sum([s.end_s - s.start_s for s in outcome.spans if s.worker == worker]))
            / outcome.seconds,
            3,
        )
        for worker in workers
    }
