"""Workers behind a scheduler, for asyncio: arrays in, arrays out, none lost with a worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from core.schedule.devices import Gone, WorkerProcess, WorkerSpec
from core.schedule.job import Batch, Device, Job, Model, Refusal, Scheduler
from core.schedule.joining import Arrays, Payload, Result, Running, check_rows, group, join, split
from core.schedule.kept import Kept
from core.schedule.wire import Frame
from edge.manifest import Tensor

__all__ = [
    *("Arrays", "Expired", "Failed", "LoadedModel", "Lost", "Pool", "Refused", "Result"),
    "WorkerSpec",
]

LOG = logging.getLogger(__name__)
# A batch may take so many times what is expected of it, and `Pool.hang_s` more.
HANG_FACTOR = 10.0
# Between two starts of a worker that does not come up.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# One that lived shorter than this did not really come up.
SHORT_LIFE_S = 1.0


@dataclass(frozen=True)
class LoadedModel:
    """What a worker says of a model it loaded and tested."""

    key: str
    backend: str  # facts of edge.backends.Facts
    runtime: str
    precision: str
    seconds: Mapping[int, float]  # rows -> duration of a warm run
    max_batch: int = 1  # rows; 1 also where the model turned out not to allow more
    obstacle: str = ""  # why it is not batched, if more was asked for
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Refused(Exception):
    """The scheduler did not take the job; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Expired(Exception):
    """The deadline passed while the job waited."""


class Lost(Exception):
    """Two workers died under the job, or the pool was closed."""


class Failed(Exception):
    """The model refused the arrays or failed; the runtime's own words."""


@dataclass(eq=False)
class _Slot:
    """A worker that should be there; its process may be replaced."""

    spec: WorkerSpec
    device: Device
    process: WorkerProcess | None = None
    loaded: set[str] = field(default_factory=set)
    is_ready: bool = False  # the scheduler knows it
    is_stopping: bool = False
    ready_since: float = 0.0
    pause_s: float = 0.0  # before the next start
    running: Running | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    restart: asyncio.Task[None] | None = None


@dataclass(eq=False)
class _Entry:
    """A model in service."""

    model: Model
    file: Path  # our copy
    sha256: str
    num_jobs: int = 0
    is_closing: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
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
    _slots: dict[str, _Slot] = field(default_factory=dict)
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _jobs: set[Job] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None
    _timer_s: float = inf
    _kept: Kept | None = None
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_closed: bool = False

    async def start_worker(self, spec: WorkerSpec) -> None:
        """Start a process, load every model of the pool in it; it takes jobs once all are warm.

        Raises:
            ValueError: there is one of that id, or it refused a model.
            Gone: it died before it was ready.
        """
        if spec.id in self._slots or self._is_closed:
            what = "closed" if self._is_closed else f"has a worker {spec.id!r}"
            raise ValueError(f"spec.id={spec.id!r}: the pool {what}; give another id or pool")
        slot = _Slot(spec, Device(spec.id, spec.kind))
        self._slots[spec.id] = slot
        try:
            await self._bring_up(slot)
        except BaseException:
            self._slots.pop(spec.id, None)
            if slot.process is not None:
                slot.is_stopping = True
                slot.process.kill("it did not come up")
                await slot.process.wait()
            raise

    async def stop_worker(self, worker_id: str) -> None:
        """Let it finish what it computes, then end it; waiting jobs go to the others.

        Raises:
            ValueError: there is none of that id.
        """
        slot = self._slots.get(worker_id)
        if slot is None or slot.is_stopping:
            raise ValueError(f"worker_id={worker_id!r} is not one of {', '.join(self._slots)}")
        slot.is_stopping = True
        if slot.restart is not None:
            slot.restart.cancel()
        if slot.is_ready:
            self.scheduler.retire_device(worker_id, time.monotonic())
            self._advance()
        if slot.running is not None:
            slot.idle.clear()
            await slot.idle.wait()
        if slot.is_ready:
            slot.is_ready = False
            self._drop_device(slot)
        if slot.process is not None:
            await slot.process.stop()
        self._slots.pop(worker_id, None)

    async def load(self, model: Model, file: Path, sha256: str) -> list[LoadedModel]:
        """Load a model in all workers, self-test it, measure it; then it takes jobs.

        The pool works from a copy of the file, which may change from then on. Models in service
        go on meanwhile.

        Args:
            model: with as many rows as may run together; where the model does not allow it, one.
            file: an .onnx or .ebundle file.
            sha256: as `hash_model` gives it; "" takes what is there.
        Returns:
            one for each worker.
        Raises:
            ValueError: one worker refused it, or died of it; it is unloaded everywhere again.
        """
        if model.key in self._entries:
            raise ValueError(f"model {model.key!r} is loaded already; give it another version")
        async with self._loading:
            if self._kept is None:
                self._kept = await asyncio.to_thread(Kept)
            copy = await asyncio.to_thread(self._kept.keep, file, sha256)
            entry = _Entry(model, copy, sha256)
            told: list[LoadedModel] = []
            try:
                # Workers may come up meanwhile.
                while slots := [slot for slot in self._ready() if model.key not in slot.loaded]:
                    told += await _all([self._load_in(slot, entry) for slot in slots])
            except BaseException as error:
                await self._forget(entry)
                if isinstance(error, Gone):
                    raise ValueError(f"{file.name} could not be loaded: {error}") from error
                raise
            entry.model = _limit(model, told)
            self._entries[model.key] = entry
            self.scheduler.set_model(entry.model, time.monotonic())
            self._advance()
        return told

    async def unload(self, key: str) -> None:
        """Wait for its jobs, then drop it in all workers.

        Raises:
            ValueError: it is not loaded.
        """
        entry = self._entries.get(key)
        if entry is None or entry.is_closing:
            raise ValueError(f"key={key!r} is not one of {', '.join(self._entries) or 'none'}")
        entry.is_closing = True
        if entry.num_jobs:
            entry.idle.clear()
            await entry.idle.wait()
        self.scheduler.drop_model(key, time.monotonic())
        del self._entries[key]
        await self._forget(entry)

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
            Refused, Expired, Lost, Failed; ValueError: a wrong number of rows.
        """
        entry = self._entries.get(model)
        if entry is None or entry.is_closing or self._is_closed:
            raise Refused(Refusal("unknown", 0.0))
        check_rows(inputs, size, entry.model.max_batch)
        now = time.monotonic()
        payload = Payload(inputs, asyncio.get_running_loop().create_future())
        job = Job(model, now, deadline_s, size, priority, tenant, payload)
        refusal = self.scheduler.submit(job, now)
        if refusal is not None:
            raise Refused(refusal)
        self._jobs.add(job)
        entry.num_jobs += 1
        try:
            self._advance()
            return await payload.future
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
        return {slot.spec.id: slot.device for slot in self._ready() if not slot.is_stopping}

    @property
    def processes(self) -> Mapping[str, int]:
        """Worker -> process id, of those that take jobs."""
        return {
            slot.spec.id: slot.process.pid for slot in self._ready() if slot.process is not None
        }

    @property
    def num_waiting(self) -> int:
        """Jobs that are taken and not yet on a worker."""
        on_worker = sum(
            len(slot.running.batch.jobs) for slot in self._slots.values() if slot.running
        )
        # Cancelled jobs may still run.
        return max(0, len(self._jobs) - on_worker)

    async def close(self, grace_s: float = 5.0) -> None:
        """End all workers; jobs that wait fail, those that run have `grace_s` to finish."""
        self._is_closed = True
        running = {
            id(job)
            for slot in self._slots.values()
            if slot.running
            for job in slot.running.batch.jobs
        }
        for job in list(self._jobs):
            if id(job) not in running:
                self._end_job(job, Lost("the workers were stopped before the job's turn"))
                self.scheduler.cancel(job, time.monotonic())
        stops = [
            asyncio.ensure_future(self.stop_worker(slot.spec.id))
            for slot in list(self._slots.values())
            if not slot.is_stopping
        ]
        if stops:
            _, late = await asyncio.wait(stops, timeout=grace_s)
            if late:
                for slot in self._slots.values():
                    if slot.process is not None:
                        slot.process.kill("the pool was closed")
                await asyncio.wait(late)
            for stop in stops:
                stop.result()
        for job in list(self._jobs):
            self._end_job(job, Lost("the workers were stopped"))
        if self._timer is not None:
            self._timer.cancel()
        if self._kept is not None:
            await asyncio.to_thread(self._kept.close)

    def _ready(self) -> list[_Slot]:
        return [slot for slot in self._slots.values() if slot.is_ready]

    # Workers

    async def _bring_up(self, slot: _Slot) -> None:
        slot.loaded.clear()
        slot.process = await WorkerProcess.start(slot.spec, partial(self._on_end, slot))
        # Models may be loaded or unloaded meanwhile.
        while missing := [entry for key, entry in self._entries.items() if key not in slot.loaded]:
            await self._load_in(slot, missing[0])
        if slot.process.is_gone:
            raise Gone(slot.process.describe_end())
        slot.is_ready, slot.ready_since = True, time.monotonic()
        self.scheduler.add_device(slot.device, slot.ready_since)
        self._advance()

    async def _load_in(self, slot: _Slot, entry: _Entry) -> LoadedModel:
        process, model = slot.process, entry.model
        assert process is not None
        try:
            async with asyncio.timeout(self.load_s):
                content = await process.ask(
                    "load",
                    key=model.key,
                    path=str(entry.file),
                    sha256=entry.sha256,
                    max_batch=model.max_batch,
                )
        except TimeoutError:
            process.kill(f"loading {model.key} took over {self.load_s} s")
            raise Gone(
                f"worker {slot.spec.id!r} took over {self.load_s} s for {model.key}"
            ) from None
        slot.loaded.add(model.key)
        loaded = _loaded(model.key, content)
        if self.on_loaded is not None:
            self.on_loaded(slot.spec, loaded)
        return loaded

    async def _forget(self, entry: _Entry) -> None:
        """Drop a model in the workers that have it, and our copy of its file."""
        key = entry.model.key
        asked = []
        for slot in self._slots.values():
            slot.loaded.discard(key)
            if slot.process is not None and not slot.process.is_gone:
                asked.append(slot.process.ask("unload", key=key))
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            # A worker that is gone has unloaded it as well.
            if isinstance(answer, BaseException) and not isinstance(answer, Gone):
                raise answer
        if self._kept is not None:
            await asyncio.to_thread(self._kept.drop, entry.file)

    def _on_end(self, slot: _Slot, process: WorkerProcess) -> None:
        """A worker's process is gone, for whatever reason."""
        if slot.process is not process:
            return
        was_ready, slot.is_ready = slot.is_ready, False
        if was_ready:
            self._drop_device(slot)
        if not slot.is_stopping and not self._is_closed and was_ready:
            if self.on_death is not None:
                self.on_death(slot.spec.id, process.describe_end())
            is_young = time.monotonic() - slot.ready_since < SHORT_LIFE_S
            slot.pause_s = _longer(slot.pause_s) if is_young else 0.0
            slot.restart = asyncio.get_running_loop().create_task(self._replace(slot))
        self._advance()

    def _drop_device(self, slot: _Slot) -> None:
        now = time.monotonic()
        running, slot.running = slot.running, None
        lost = self.scheduler.drop_device(slot.spec.id, now)
        if running is not None:
            running.hang.cancel()
            for job in running.batch.jobs:
                if job.payload.future.done():
                    # Nobody waits for it: it is not computed again.
                    self.scheduler.cancel(job, now)
        for job in lost:
            self._end_job(job, Lost("two workers died while they computed the job"))
        slot.idle.set()

    async def _replace(self, slot: _Slot) -> None:
        while True:
            if slot.process is not None:
                await slot.process.wait()
            await asyncio.sleep(slot.pause_s)
            try:
                await self._bring_up(slot)
            except (Gone, ValueError, OSError) as error:
                LOG.warning("worker %r does not come up again: %s", slot.spec.id, error)
                slot.pause_s = _longer(slot.pause_s)
                if slot.process is not None:
                    slot.process.kill("it did not come up")
            else:
                return

    # Jobs

    def _advance(self) -> None:
        """Start what the scheduler says, give up what is late, and come back in time."""
        now = time.monotonic()
        for job in self.scheduler.expire(now):
            self._end_job(job, Expired("the deadline passed while the job waited"))
        for batch in self.scheduler.dispatch(now):
            self._start(batch)
        if self._is_closed:
            return
        due = self.scheduler.next_event(now)
        if due < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            loop = asyncio.get_running_loop()
            self._timer_s = due
            self._timer = loop.call_later(max(0.0, due - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_s = None, inf
        self._advance()

    def _start(self, batch: Batch) -> None:
        slot = self._slots[batch.device]
        process = slot.process
        assert process is not None
        assert slot.running is None
        groups = group(batch.jobs)
        hang_s = self.hang_s + HANG_FACTOR * batch.expected_s
        loop = asyncio.get_running_loop()
        hang = loop.call_later(hang_s, process.kill, f"it hung for {hang_s:.1f} s")
        slot.running = Running(batch, len(groups), hang)
        for jobs in groups:
            self._send(slot, slot.running, jobs)

    def _send(self, slot: _Slot, running: Running, jobs: list[Job]) -> None:
        assert slot.process is not None
        on_answer = partial(self._on_answer, slot, running, jobs)
        slot.process.send_run(running.batch.model, join(jobs), on_answer)

    def _on_answer(
        self, slot: _Slot, running: Running, jobs: list[Job], frame: Frame | None
    ) -> None:
        if frame is None or slot.running is not running:
            # The worker is gone: `_on_end` has seen to the jobs.
            return
        running.compute_s += frame.seconds
        batch = running.batch
        try:
            if frame.op == "error":
                raise ValueError(frame.content["message"])
            shares = split(frame.arrays, jobs)
        except ValueError as error:
            if len(jobs) > 1:
                # One of them spoils it for the others: each is tried alone.
                running.num_groups += len(jobs) - 1
                for job in jobs:
                    self._send(slot, running, [job])
                return
            running.has_failed = True
            self._end_job(jobs[0], Failed(str(error)))
        else:
            for job, outputs in zip(jobs, shares, strict=True):
                queue_s = batch.started_s - job.arrived_s
                result = Result(outputs, queue_s, frame.seconds, batch.size, slot.spec.id)
                if not job.payload.future.done():
                    job.payload.future.set_result(result)
        running.num_groups -= 1
        if not running.num_groups:
            self._finish(slot, running)

    def _finish(self, slot: _Slot, running: Running) -> None:
        batch = running.batch
        running.hang.cancel()
        slot.running = None
        slot.idle.set()
        self.scheduler.finish(batch, time.monotonic())
        if self.on_batch is not None and not running.has_failed:
            delays = [batch.started_s - job.arrived_s for job in batch.jobs]
            self.on_batch(batch.model, batch.size, delays, running.compute_s, slot.spec.id)
        self._advance()

    def _end_job(self, job: Job, error: Exception) -> None:
        future = job.payload.future
        if not future.done():
            future.set_exception(error)


async def _all(awaitables: Sequence[Any]) -> list[Any]:
    """Results of all; the first error only after all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _limit(model: Model, told: Sequence[LoadedModel]) -> Model:
    return replace(model, max_batch=min([model.max_batch, *(one.max_batch for one in told)]))


def _loaded(key: str, content: Mapping[str, Any]) -> LoadedModel:
    def tensors(name: str) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(one["name"], one["dtype"], tuple(one["shape"])) for one in content[name]
        )

    return LoadedModel(
        key=key,
        backend=content["backend"],
        runtime=content["runtime"],
        precision=content["precision"],
        seconds=dict(content["seconds"]),
        max_batch=content["max_batch"],
        obstacle=content["obstacle"],
        inputs=tensors("inputs"),
        outputs=tensors("outputs"),
    )


def _longer(pause_s: float) -> float:
    return min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
