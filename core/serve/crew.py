"""The workers of a service: how many there are, what they are pinned to, and what they did."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from itertools import count
from typing import Any

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Job, Refusal
from core.schedule.pool import LoadedModel, Pool, WorkerSpec
from core.serve.autoscale import Autoscaler, Load, ScaleRule
from core.serve.config import ServeConfig
from core.serve.congestion import Congestion
from core.serve.metrics import Metrics

LOG = logging.getLogger(__name__)
KIND = "worker"
# Between two looks at the load.
TICK_S = 0.1
# Over which the workers' use is told; batches end in lumps.
WINDOW_S = 2.0
# Of the objective, what the oldest request may wait before there are too few workers.
DELAY_SHARE = 0.25
# What runs when all are stopped had its time before.
CLOSE_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class Crew:
    """Keeps the number of workers; the pool replaces one that dies. Of one event loop."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._costs = CostTable("measured by the workers")
        self._scheduler = DeepFlow(self._costs, max_queue=config.max_queue)
        self.pool = Pool(
            self._scheduler,
            on_batch=self._on_batch,
            on_death=self._on_death,
            on_loaded=self._on_loaded,
        )
        rule = ScaleRule(
            min_workers=config.min_workers,
            max_workers=config.max_workers,
            delay_s=DELAY_SHARE * config.slo_ms / 1e3,
        )
        self.scaler = Autoscaler(rule)
        self.congestion = Congestion(config.slo_ms / 1e3)
        self._numbers = count()
        self._specs: dict[str, WorkerSpec] = {}  # those that are, or come
        self._changes: set[asyncio.Task[None]] = set()
        # Computed since the last look, and at the looks before: rows, batches, seconds.
        self._rows, self._batches, self._busy_s = 0, 0, 0.0
        self._looks: deque[tuple[int, int, float]] = deque(maxlen=round(WINDOW_S / TICK_S))
        self._refused = False
        self._arrival = asyncio.Event()
        self._pause_s = 0.0
        self._not_before_s = 0.0
        self._reason = ""
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the first workers; the others come and go by themselves.

        Raises:
            ValueError: none comes up.
        """
        self._watch = asyncio.create_task(self._run())
        self._adjust()
        while not self.pool.workers:
            await self.wait_ready(time.monotonic() + 2 * TICK_S)
            if self._reason and not self.pool.workers:
                raise ValueError(f"no worker comes up: {self._reason}")

    async def wait_ready(self, deadline_s: float) -> bool:
        """Until a worker takes requests; False: not by then, on the clock `time.monotonic`."""
        while not self.pool.workers:
            self.wake()
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            self._arrival.clear()
            try:
                async with asyncio.timeout(min(left_s, TICK_S)):
                    await self._arrival.wait()
            except TimeoutError:
                continue
        return True

    def wake(self) -> None:
        """A request comes; there may be no worker, where that is allowed."""
        if not self._specs:
            self.scaler.wake(time.monotonic())
            self._adjust()

    def scale(self, change: int) -> int:
        """Have more workers, or fewer; how many there should be then."""
        wanted = self.scaler.nudge(time.monotonic(), change)
        self._adjust()
        return wanted

    def refuse(self, job: Job) -> Refusal | None:
        """Why the pool would not take a request, where others wait already."""
        if not self.pool.num_waiting:
            return None
        return self._scheduler.refuse(job, job.arrived_s)

    def note_refusal(self) -> None:
        """A request was turned away because as many wait as may."""
        self._refused = True

    async def stop(self) -> None:
        """End all workers; what they still compute is lost."""
        tasks = [*self._changes, *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.pool.close(CLOSE_S)
        self._metrics.workers(0, 0)

    async def _run(self) -> None:
        """Look at the load again and again."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self._look(time.monotonic())
            except Exception:
                # A mistake in a number must not end the care for the workers.
                LOG.exception("the load could not be looked at")

    def _look(self, now: float) -> None:
        load = self._load(now)
        self.congestion.observe(now, load.queue_delay_s)
        if self._config.auto_scale:
            self.scaler.observe(now, load)
        self._adjust()
        self._metrics.workers(load.ready, self.scaler.wanted)
        self._metrics.waiting(self.pool.num_waiting)

    def _load(self, now: float) -> Load:
        self._looks.append((self._rows, self._batches, self._busy_s))
        self._rows, self._batches, self._busy_s = 0, 0, 0.0
        rows, batches, busy_s = (sum(part) for part in zip(*self._looks, strict=True))
        ready = len(self.pool.workers)
        refused, self._refused = self._refused, False
        return Load(
            queue_delay_s=self._scheduler.queue_delay_s(now),
            utilisation=min(1.0, busy_s / (WINDOW_S * max(1, ready))),
            rows_per_s=rows / WINDOW_S,
            batch_s=busy_s / max(1, batches),
            refused=refused,
            ready=ready,
        )

    def _adjust(self) -> None:
        """Start or stop workers until there are as many as wanted."""
        wanted = self.scaler.wanted
        if len(self._specs) < wanted and time.monotonic() < self._not_before_s:
            return
        while len(self._specs) < wanted:
            spec = self._spec()
            self._specs[spec.id] = spec
            self._change(self._start(spec))
        # Those that were started last, and only while all are there.
        if len(self._specs) > wanted and len(self.pool.workers) >= len(self._specs):
            for worker in list(self._specs)[wanted:]:
                del self._specs[worker]
                self._change(self._stop(worker))

    def _change(self, change: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _start(self, spec: WorkerSpec) -> None:
        try:
            await self.pool.start_worker(spec)
        except Exception as error:  # noqa: BLE001 - it is told, and tried again after a pause
            self._reason = str(error) or type(error).__name__
            LOG.warning("%s does not start: %s", spec.id, self._reason)
            self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
            self._not_before_s = time.monotonic() + self._pause_s
            self._specs.pop(spec.id, None)
        else:
            self._pause_s, self._reason = 0.0, ""
        self._arrival.set()

    async def _stop(self, worker: str) -> None:
        try:
            await self.pool.stop_worker(worker)
        except ValueError as error:
            # It is gone already; the number is right.
            LOG.warning("%s", error)

    def _spec(self) -> WorkerSpec:
        number, threads = next(self._numbers), self._config.threads
        cores = sorted(os.sched_getaffinity(0))
        taken = [core for spec in self._specs.values() for core in spec.cores]
        # The least used; a worker with more threads than there are cores is not pinned.
        cores.sort(key=taken.count)
        is_pinned = self._config.pin and threads < len(cores)
        pinned = tuple(sorted(cores[:threads])) if is_pinned else ()
        return WorkerSpec(f"{KIND}-{number}", KIND, threads, pinned, self._config.device)

    def _on_batch(
        self, model: str, rows: int, queue_s: Sequence[float], seconds: float, worker: str
    ) -> None:
        self._rows += rows
        self._batches += 1
        self._busy_s += seconds
        self.congestion.computed(rows, seconds)
        self._metrics.batch(model, rows, queue_s, seconds, worker)

    def _on_death(self, _: str, reason: str) -> None:
        LOG.warning("%s; it is replaced", reason)
        self._metrics.worker_death()

    def _on_loaded(self, spec: WorkerSpec, loaded: LoadedModel) -> None:
        # What was learnt at work counts more than what a worker measures while others compute.
        if loaded.seconds and self._costs.seconds(loaded.key, spec.kind) is None:
            self._costs.measure(loaded.key, spec.kind, loaded.seconds)
