"""Workers behind a scheduler, for asyncio: arrays in, arrays out, none lost with a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path

from core.schedule.devices import Gone, WorkerProcess, WorkerSpec
from core.schedule.fleet import Entry, Fleet, LoadedModel, Slot
from core.schedule.job import Batch, Device, Job, Model, Refusal, Scheduler
from core.schedule.joining import (
    Arrays,
    Expired,
    Failed,
    Lost,
    Payload,
    Result,
    Running,
    check_inputs,
    give_up,
)

__all__ = [
    "Arrays",
    "Expired",
    "Failed",
    "Gone",
    "LoadedModel",
    "Lost",
    "Pool",
    "Refused",
    "Result",
    "WorkerSpec",
]

# A batch may take so many times what is expected of it, and `Pool.hang_s` more.
HANG_FACTOR = 10.0
LONGEST_LOOK_S = 1.0
# Of a batch after `Pool.close`, and of a job that is waiting then.
CLOSED = "the workers were stopped before it was computed"


class Refused(Exception):
    """The scheduler did not take the job; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


@dataclass(eq=False)
class Pool:
    """Worker processes and the scheduler that feeds them; all methods belong to one event loop.

    A worker that dies is replaced under its id, at once or, if it does not come up, after a pause.
    Times are those of `time.monotonic`.
    """

    scheduler: Scheduler
    # Called after each batch: model, rows, jobs' queue delays (s), duration (s), worker.
    on_batch: Callable[[str, int, Sequence[float], float, str], None] | None = None
    # Called when a worker died that should not have: its id, why.
    on_death: Callable[[str, str], None] | None = None
    # Called when a worker loaded a model, before it takes jobs of it.
    on_loaded: Callable[[WorkerSpec, LoadedModel], None] | None = None
    # A worker that takes this much longer than it should is ended.
    hang_s: float = 10.0
    # How long a worker may take to load a model.
    load_s: float = 300.0
    _fleet: Fleet = field(init=False)
    _jobs: set[Job] = field(default_factory=set)
    _num_running: int = 0  # jobs
    _timer: asyncio.TimerHandle | None = None
    _timer_s: float = inf
    _look: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._fleet = Fleet(
            on_up=self._on_up,
            on_down=self._on_down,
            on_death=self._on_death,
            on_loaded=self._on_loaded,
            load_s=self.load_s,
        )

    async def start_worker(self, spec: WorkerSpec) -> None:
        """Start a process, load every model of the pool in it; it takes jobs once all are warm.

        Raises:
            ValueError: there is one of that id, or it refused a model.
            Gone: it died before it was ready.
        """
        if spec.id in self._fleet.slots or self._fleet.is_closed:
            what = "is closed" if self._fleet.is_closed else "has one of that name"
            raise ValueError(f"spec.id={spec.id!r} cannot be started: the pool {what}")
        if self._look is None:
            self._look_for_hung()
        await self._fleet.start(spec)

    async def stop_worker(self, worker_id: str) -> None:
        """Let it finish what it computes, then end it; waiting jobs go to the others.

        It ends also if the awaiting task is cancelled.

        Raises:
            ValueError: there is none of that id.
        """
        slot = self._fleet.slots.get(worker_id)
        if slot is None or slot.stop is not None:
            there = ", ".join(self._fleet.slots) or "none"
            raise ValueError(f"worker_id={worker_id!r} is not one of {there}")
        await asyncio.shield(self._stop(slot))

    def _stop(self, slot: Slot) -> asyncio.Task[None]:
        if slot.stop is None:
            slot.stop = asyncio.get_running_loop().create_task(self._let_finish(slot))
        return slot.stop

    async def _let_finish(self, slot: Slot) -> None:
        if slot.is_ready:
            self.scheduler.retire_device(slot.spec.id, time.monotonic())
            self._advance()
        if slot.running is not None:
            slot.idle.clear()
            await slot.idle.wait()
        if slot.is_ready:
            slot.is_ready = False
            self._drop_device(slot)
        await self._fleet.end(slot)

    async def load(
        self,
        model: Model,
        file: Path,
        sha256: str,
        *,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> list[LoadedModel]:
        """Load a model in all workers, self-test it, measure it; then it takes jobs.

        The pool works from a copy of the file, which may change from then on. Models in service
        go on meanwhile.

        Args:
            model: with as many rows as may run together; where the model does not allow it, one.
            file: an .onnx or .ebundle file, or a recording of `core.schedule.replay`.
            sha256: as `hash_model` gives it; "" takes what is there.
            after: is waited for before workers are asked, while the file is copied.
        Returns:
            one for each worker.
        Raises:
            ValueError: one worker refused it, or died of it; it is unloaded everywhere again.
            OSError: the file cannot be read.
        """
        if model.key in self._fleet.entries or self._fleet.is_closed:
            what = "the pool is closed" if self._fleet.is_closed else "it is loaded already"
            raise ValueError(f"model {model.key!r} cannot be loaded: {what}")
        entry, told = await self._fleet.load(model, file, sha256, after)
        self._limit(entry, told)
        self.scheduler.set_model(entry.model, time.monotonic())
        self._advance()
        return told

    async def unload(self, key: str) -> None:
        """Wait for its jobs, then drop it in all workers.

        Raises:
            ValueError: it is not loaded.
        """
        entry = self._fleet.entries.get(key)
        if entry is None or entry.is_closing:
            there = ", ".join(self._fleet.entries) or "none"
            raise ValueError(f"key={key!r} is not one of {there}")
        entry.is_closing = True
        try:
            if entry.num_jobs:
                entry.idle.clear()
                await entry.idle.wait()
        except asyncio.CancelledError:
            entry.is_closing = False
            raise
        self.scheduler.drop_model(key, time.monotonic())
        await self._fleet.unload(entry)

    async def run(
        self,
        model: str,
        inputs: Arrays,
        *,
        size: int = 1,
        deadline_s: float,
        priority: int = 0,
        tenant: str = "",
    ) -> Result:
        """One job; cancelling the awaiting task takes it out of the queue at once.

        Args:
            model: its key.
            inputs: as the model has them; `size` rows on the first axis if it is batched.
            size: rows.
            deadline_s: on the clock of `time.monotonic`.
            priority: the larger goes first.
            tenant: whose share of the queue it uses.
        Returns:
            outputs; where several jobs ran together, views of memory they share.
        Raises:
            Refused, Expired, Lost, Failed.
            ValueError: a number of rows or a type that cannot be sent.
        """
        entry = self._fleet.entries.get(model)
        if entry is None or entry.is_closing or self._fleet.is_closed:
            raise Refused(Refusal("unknown", 0.0))
        check_inputs(inputs, size, entry.model.max_batch)
        now = time.monotonic()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        payload = Payload(inputs, future)
        job = Job(model, now, deadline_s, size, priority, tenant, payload)
        refusal = self.scheduler.submit(job, now)
        if refusal is not None:
            raise Refused(refusal)
        self._jobs.add(job)
        entry.num_jobs += 1
        try:
            self._advance(now)
            return await future
        except asyncio.CancelledError:
            # What runs already is computed to its end, for nobody.
            self.scheduler.cancel(job, time.monotonic())
            self._advance()
            raise
        finally:
            self._jobs.discard(job)
            entry.num_jobs -= 1
            if not entry.num_jobs:
                entry.idle.set()

    @property
    def workers(self) -> Mapping[str, Device]:
        """Those that take jobs."""
        return {slot.spec.id: slot.device for slot in self._fleet.ready() if slot.stop is None}

    @property
    def processes(self) -> Mapping[str, int]:
        """Process ids of the workers that are up."""
        return {slot.spec.id: self.process(slot.spec.id).pid for slot in self._fleet.ready()}

    def process(self, worker_id: str) -> WorkerProcess:
        """Of a worker that is up, past the scheduler: to measure it, say.

        Raises:
            KeyError: there is none of that id.
        """
        process = self._fleet.slots[worker_id].process
        if process is None or process.is_gone:
            raise KeyError(worker_id)
        return process

    @property
    def num_waiting(self) -> int:
        """Jobs that are taken and not on a worker yet."""
        # Jobs that were cancelled while they ran are counted there still.
        return max(0, len(self._jobs) - self._num_running)

    async def close(self, grace_s: float = 5.0) -> None:
        """End all workers; jobs that wait fail, those that run have `grace_s` to finish."""
        self._fleet.is_closed = True
        now = time.monotonic()
        for job in list(self._jobs):
            if self.scheduler.cancel(job, now):
                give_up(job, Lost(CLOSED))
        slots = list(self._fleet.slots.values())
        stops = [self._stop(slot) for slot in slots]
        if stops:
            _, late = await asyncio.wait(stops, timeout=grace_s)
            if late:
                for slot in slots:
                    if slot.process is not None:
                        slot.process.kill("the pool was closed")
            await asyncio.gather(*stops)
        # Those of workers that died now, and of none at all.
        for job in list(self._jobs):
            give_up(job, Lost(CLOSED))
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()
        await self._fleet.close()

    # What the fleet tells.

    def _on_up(self, slot: Slot) -> None:
        self.scheduler.add_device(slot.device, slot.ready_since)
        self._advance()

    def _on_down(self, slot: Slot) -> None:
        self._drop_device(slot)
        self._advance()

    def _on_death(self, slot: Slot, why: str) -> None:
        if self.on_death is not None:
            self.on_death(slot.spec.id, why)

    def _on_loaded(self, slot: Slot, loaded: LoadedModel) -> None:
        if self.on_loaded is not None:
            self.on_loaded(slot.spec, loaded)
        entry = self._fleet.entries.get(loaded.key)
        if entry is not None and self._limit(entry, [loaded]):
            self.scheduler.set_model(entry.model, time.monotonic())

    def _limit(self, entry: Entry, told: Sequence[LoadedModel]) -> bool:
        """Take the fewest rows that any worker says may run together; whether that is news."""
        fewest = min([entry.model.max_batch, *(one.max_batch for one in told)])
        is_news = fewest < entry.model.max_batch
        entry.model = replace(entry.model, max_batch=fewest)
        return is_news

    def _drop_device(self, slot: Slot) -> None:
        now = time.monotonic()
        running, slot.running = slot.running, None
        if running is not None:
            running.abandon()
        lost = self.scheduler.drop_device(slot.spec.id, now)
        if running is not None:
            self._num_running -= len(running.batch.jobs)
            for job in running.batch.jobs:
                if job.payload.future.done():
                    # Nobody waits for it: it is not computed again.
                    self.scheduler.cancel(job, now)
        for job in lost:
            give_up(job, Lost("two workers died while they computed the job"))
        slot.idle.set()

    def _look_for_hung(self) -> None:
        now = time.monotonic()
        for slot in self._fleet.ready():
            running = slot.running
            if running is not None and slot.process is not None and now > running.latest_s:
                taken_s = now - running.batch.started_s
                slot.process.kill(f"it hung: {taken_s:.1f} s for a batch of {running.batch.model}")
        pause_s = min(LONGEST_LOOK_S, self.hang_s / 4)
        self._look = asyncio.get_running_loop().call_later(pause_s, self._look_for_hung)

    # Jobs.

    def _advance(self, now: float = 0.0) -> None:
        """Start what the scheduler says, give up what is late, and come back in time."""
        now = now or time.monotonic()
        scheduler = self.scheduler
        for batch in scheduler.dispatch(now):
            self._start(batch)
        due = scheduler.next_event(now)
        if due < self._timer_s and not self._fleet.is_closed:
            if self._timer is not None:
                self._timer.cancel()
            loop = asyncio.get_running_loop()
            self._timer_s = due
            self._timer = loop.call_later(max(0.0, due - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_s = None, inf
        for job in self.scheduler.expire(time.monotonic()):
            give_up(job, Expired("the deadline passed while the job waited"))
        self._advance()

    def _start(self, batch: Batch) -> None:
        slot = self._fleet.slots[batch.device]
        assert slot.process is not None
        assert slot.running is None
        latest_s = batch.started_s + self.hang_s + HANG_FACTOR * batch.expected_s
        slot.running = Running(batch, slot.process, partial(self._finish, slot), latest_s)
        self._num_running += len(batch.jobs)
        slot.running.start()

    def _finish(self, slot: Slot, running: Running) -> None:
        batch = running.batch
        slot.running = None
        self._num_running -= len(batch.jobs)
        slot.idle.set()
        self.scheduler.finish(batch, time.monotonic())
        self._advance()
        if self.on_batch is not None and not running.has_failed:
            delays = [batch.started_s - job.arrived_s for job in batch.jobs]
            self.on_batch(batch.model, batch.size, delays, running.compute_s, slot.spec.id)
