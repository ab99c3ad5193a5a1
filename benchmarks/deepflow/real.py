"""Tier (a): worker processes, each pinned to a core of its own, one thread each.

The generator and the dispatcher are one more process, which shares the workers' cores: what they
take of them is missing from what is measured, for every rule alike.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from benchmarks.deepflow import models
from benchmarks.deepflow.contenders import Contender
from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.mixes import Mix, arrivals
from benchmarks.deepflow.offer import Outcome, Recorder, key, offer
from core.schedule.costs import CostTable
from core.schedule.job import Model
from core.schedule.pool import LoadedModel, Pool, WorkerSpec

WARM_UP_S = 1.0


class Stage:
    """Workers of a mix under one rule."""

    def __init__(self, mix: Mix, costs: Costs, pool: Pool, recorder: Recorder) -> None:
        self.mix, self.costs, self.pool, self.recorder = mix, costs, pool, recorder
        self.samples = [models.inputs_of(s.model, s.size) for s in mix.streams]

    async def run(self, rate: float, seconds: float, seed: int = 0) -> Outcome:
        """Offer a rate for a while."""
        return await offer(
            self.pool,
            self.mix,
            arrivals(self.mix, rate, seconds, seed),
            rate=rate,
            seconds=seconds,
            slo_s=self.mix.slo_s(self.costs),
            samples=self.samples,
            recorder=self.recorder,
        )


@asynccontextmanager
async def stage(
    mix: Mix, contender: Contender, costs: Costs, files: Sequence[Path]
) -> AsyncIterator[Stage]:
    """Start the workers of a mix with all models, and end them afterwards.

    Args:
        mix: its kinds are the workers' targets, or recorded kinds where `files` are recordings.
        contender: the rule; it gets the costs that the workers measured while they loaded.
        costs: of which the SLOs are made.
        files: of each stream's model.
    """
    os.environ["DEEPKITS_HOME"] = str(models.KEYS)
    table = CostTable("measured by the workers when they loaded the models")
    recorder = Recorder()

    def learn(spec: WorkerSpec, loaded: LoadedModel) -> None:
        if loaded.seconds:
            table.measure(loaded.key, spec.kind, loaded.seconds)

    pool = Pool(contender.make(mix, costs, table), on_batch=recorder.batch, on_loaded=learn)
    num_cores = len(os.sched_getaffinity(0))
    slo_s = mix.slo_s(costs)
    try:
        for number, kind in enumerate(mix.kinds):
            spec = WorkerSpec(worker_id(number, kind), kind, 1, (number % num_cores,), target=kind)
            await pool.start_worker(spec)
        for stream, file in zip(mix.streams, files, strict=True):
            rows = models.max_batch(stream.model)
            model = Model(key(stream.model), rows, slo_s=slo_s[stream.model])
            await pool.load(model, file, "")
        stage_ = Stage(mix, costs, pool, recorder)
        # One of each at least, so that nothing is used for the first time while it counts.
        await stage_.run(20.0, WARM_UP_S, seed=99)
        yield stage_
    finally:
        await pool.close()


def worker_id(number: int, kind: str) -> str:
    """Names the core and what runs on it."""
    return f"{number}: {kind}"


def bundles(mix: Mix) -> list[Path]:
    """The files of a mix's models."""
    return [models.bundle(stream.model) for stream in mix.streams]


def run_once(mix: Mix, contender: Contender, costs: Costs, rate: float, seconds: float) -> Outcome:
    """A single run, for a look."""

    async def go() -> Outcome:
        async with stage(mix, contender, costs, bundles(mix)) as started:
            return await started.run(rate, seconds)

    return asyncio.run(go())


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
