"""Worker processes under rules that take turns.

In tier (a) each is pinned to a core of its own, with one thread.

The generator and the dispatcher are one more process, which shares the workers' cores: what they
take of them is missing from what is measured, for every rule alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.deepflow import models
from benchmarks.deepflow.contenders import ANY_BATCH, Contender, best_settings
from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.mixes import Mix, arrivals
from benchmarks.deepflow.offer import Outcome, Recorder, Request, key, offer
from benchmarks.deepflow.scenes import device_id
from benchmarks.deepflow.switch import ANY_KIND, Switch
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
    """Workers that are up, and the rule that is in place."""

    def __init__(self, what: Cast, costs: Costs) -> None:
        self.cast, self.costs = what, costs
        self.recorder, self.switch = Recorder(), Switch()
        self.pool = Pool(self.switch, on_batch=self.recorder.batch, on_loaded=self._learn)
        self._measured: dict[tuple[str, str], Mapping[int, float]] = {}
        self._tables: dict[str, CostTable] = {}

    async def start(self) -> None:
        """Start the workers with all models."""
        for number, kind in enumerate(self.cast.mix.kinds):
            cores = self.cast.cores[number]
            await self.pool.start_worker(
                WorkerSpec(device_id(number, kind), kind, 1, cores, target=kind)
            )
        for request, file, rows in zip(
            self.cast.requests, self.cast.files, self.cast.max_rows, strict=True
        ):
            await self.pool.load(Model(key(request.model), rows, slo_s=request.slo_s), file, "")

    async def run(
        self, contender: Contender, rate: float, seconds: float, seed: int = 0
    ) -> Outcome:
        """Put a rule in place and offer a rate for a while."""
        self.put(contender)
        return await offer(
            self.pool,
            self.cast.requests,
            arrivals(self.cast.mix, rate, WARM_UP_S + seconds, seed),
            rate=rate,
            warm_up_s=WARM_UP_S,
            seconds=seconds,
            recorder=self.recorder,
        )

    def put(self, contender: Contender) -> None:
        """Put a rule in place; nothing may run."""
        settings = best_settings(contender, self.cast.mix, self.costs)
        most = contender.batch(settings)
        largest = {
            key(request.model): request.rows * (most or ANY_BATCH) for request in self.cast.requests
        }
        rule = contender.make(settings, self._table(contender))
        self.switch.put(rule, largest, time.monotonic(), is_blind=contender.is_blind)

    def _learn(self, spec: WorkerSpec, loaded: LoadedModel) -> None:
        if loaded.seconds:
            self._measured[loaded.key, spec.kind] = loaded.seconds

    def _table(self, contender: Contender) -> CostTable:
        """A contender's own, which goes on learning from run to run."""
        if contender.name not in self._tables:
            table = CostTable("measured by the workers when they loaded the models")
            for (model, kind), seconds in self._measured.items():
                table.measure(model, kind, seconds)
                if contender.is_blind:
                    table.measure(model, ANY_KIND, self._mean(model))
            self._tables[contender.name] = table
        return self._tables[contender.name]

    def _mean(self, model: str) -> dict[int, float]:
        """Over all kinds, of the sizes that all have."""
        curves = [seconds for (key_, _), seconds in self._measured.items() if key_ == model]
        common = set.intersection(*(set(curve) for curve in curves))
        return {rows: sum(c[rows] for c in curves) / len(curves) for rows in sorted(common)}


@asynccontextmanager
async def stage(what: Cast, costs: Costs) -> AsyncIterator[Stage]:
    """Workers of a mix, ended afterwards."""
    os.environ["DEEPKITS_HOME"] = str(models.KEYS)
    made = Stage(what, costs)
    try:
        await made.start()
        yield made
    finally:
        await made.pool.close()


def busy_shares(outcome: Outcome) -> dict[str, float]:
    """How much of its time each worker computed."""
    workers = sorted({span.worker for span in outcome.spans})
    return {
        worker: round(
            sum(
                max(0.0, min(span.end_s, outcome.seconds) - max(span.start_s, 0.0))
                for span in outcome.spans
                if span.worker == worker
            )
            / outcome.seconds,
            3,
        )
        for worker in workers
    }
