"""The engine of one machine: small models in this process, others in workers, all replaceable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from core.schedule.job import Job, Refusal
from core.schedule.pool import Expired, Failed, Lost, Refused
from core.serve.catalogue import Catalogue, Version
from core.serve.config import ServeConfig
from core.serve.crew import Crew
from core.serve.engine import Answer, Arrays, Call, Served, State
from core.serve.errors import (
    BadRequest,
    DeadlineExceeded,
    NotReady,
    Overloaded,
    WorkerLost,
)
from core.serve.loading import Loader
from core.serve.metrics import Metrics
from core.serve.watch import Watcher

LOG = logging.getLogger(__name__)
INLINE = "inline"  # the worker's name in metrics
Run = Callable[[Arrays], dict[str, np.ndarray]]


class LocalEngine:
    """An `Engine` of this process and its workers; of one event loop."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._state: State = "starting"
        self._catalogue = Catalogue(metrics)
        self._crew = Crew(config, metrics)
        self._loader = Loader(config, metrics, self._catalogue, self._crew)
        self._watch: asyncio.Task[None] | None = None
        # For what would hold up the event loop.
        self._thread = ThreadPoolExecutor(1, "inline")
        self._num_running = 0
        self._num_in_thread = 0
        self._is_idle = asyncio.Event()

    @property
    def state(self) -> State:
        """Of the whole service."""
        return self._state

    def catalogue(self) -> list[Served]:
        """All versions of all models, the newest of a model last."""
        return self._catalogue.listed()

    def find(self, name: str, version: str = "") -> Served:
        """A version that is ready; "" takes the newest.

        Raises:
            NotFound, NotReady.
        """
        return self._catalogue.find(name, version).told

    async def start(self) -> None:
        """Load and warm all models, in workers or here.

        Raises:
            ValueError: a model cannot be served; the message names file and reason.
        """
        await self._loader.load_all()
        if self._state != "starting":
            return
        if self._config.watch_s > 0:
            watcher = Watcher((file.path for file in self._config.models), self._loader.changed)
            self._watch = asyncio.create_task(watcher.run(self._config.watch_s))
        self._state = "ready"

    async def stop(self, drain_s: float) -> None:
        """Take no new request, finish the running ones within `drain_s`, stop the workers."""
        if self._state in ("draining", "stopped"):
            return
        self._state = "draining"
        if self._watch is not None:
            self._watch.cancel()
        await self._loader.stop()
        if self._num_running:
            self._is_idle.clear()
            try:
                async with asyncio.timeout(drain_s):
                    await self._is_idle.wait()
            except TimeoutError:
                LOG.warning("%d requests did not finish within %g s", self._num_running, drain_s)
        await self._crew.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._state = "stopped"

    async def reload(self, name: str) -> Served:
        """Read the model's files again; what changed is loaded beside, tested and switched to.

        Raises:
            NotFound: no such model.
            BadRequest: the new file failed; the old version stays in service.
        """
        self._catalogue.find(name)
        try:
            await self._loader.reload(name)
        except ValueError as error:
            raise BadRequest(f"{error}; the old version stays in service") from error
        return self.find(name)

    def scale(self, change: int) -> int:
        """Have so many workers more, or fewer, within the bounds; how many there should be then."""
        return self._crew.scale(change)

    async def infer(self, call: Call) -> Answer:
        """Check the inputs, wait for the turn, compute.

        Raises:
            ServeError: the subclass says what happened.
        """
        if self._state != "ready":
            raise NotReady(f"the service is {self._state}; ask again", retry_after_s=1.0)
        version = self._catalogue.find(call.model, call.version)
        rows = version.description.check(call.inputs)
        if version.pipeline is not None and rows <= version.block_rows:
            return self._compute(version, call, rows)
        # From here on others run in between; a drain waits for this one.
        self._num_running += 1
        try:
            if version.pipeline is not None:
                return await self._compute_in_thread(version, call, rows)
            return await self._compute_in_worker(version, call, rows)
        finally:
            self._num_running -= 1
            if not self._num_running:
                self._is_idle.set()

    def infer_now(self, call: Call) -> Answer | None:
        """The answer of a model that computes here and now; None: ask `infer`.

        Under overload most requests are turned away; that is known here as well.

        Raises:
            ServeError: the subclass says what happened.
        """
        if self._state != "ready":
            return None
        version = self._catalogue.find(call.model, call.version)
        rows = version.description.check(call.inputs)
        if version.pipeline is None:
            self._refuse_in_vain(version, call, rows)
            return None
        return self._compute(version, call, rows) if rows <= version.block_rows else None

    def _compute(self, version: Version, call: Call, rows: int, queue_s: float = 0.0) -> Answer:
        assert version.pipeline is not None
        start = time.perf_counter()
        try:
            outputs = version.pipeline.run(call.inputs)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        seconds = time.perf_counter() - start
        self._metrics.batch(version.key, rows, (queue_s,), seconds, INLINE)
        return Answer(outputs, version.name, version.version, queue_s, seconds, rows)

    async def _compute_in_thread(self, version: Version, call: Call, rows: int) -> Answer:
        assert version.pipeline is not None
        if self._num_in_thread >= self._config.max_queue:
            raise Overloaded(f"{self._num_in_thread} requests wait; come again", 1.0)
        self._num_in_thread += 1
        asked = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s(call)):
                loop = asyncio.get_running_loop()
                run, inputs = version.pipeline.run, call.inputs
                started, seconds, outputs = await loop.run_in_executor(
                    self._thread, lambda: _timed(run, inputs)
                )
        except TimeoutError:
            raise _late(call, self._timeout_s(call)) from None
        except ValueError as error:
            raise BadRequest(str(error)) from error
        finally:
            self._num_in_thread -= 1
        self._metrics.batch(version.key, rows, (started - asked,), seconds, INLINE)
        return Answer(outputs, version.name, version.version, started - asked, seconds, rows)

    def _refuse_in_vain(self, version: Version, call: Call, rows: int) -> None:
        """Turn away what the workers could not answer in time."""
        now = time.monotonic()
        timeout_s, is_bounded = self._bound(call, now)
        job = Job(version.key, now, now + timeout_s, rows, call.priority, call.tenant)
        refusal = self._crew.refuse(job)
        if refusal is not None and refusal.reason != "unknown":
            raise self._refused(refusal, call, now, is_bounded=is_bounded)

    def _bound(self, call: Call, now: float) -> tuple[float, bool]:
        """How long an answer may take; whether that is so for the queue's sake."""
        timeout_s, congestion = self._timeout_s(call), self._crew.congestion
        if call.timeout_s is None and congestion.is_standing(now):
            return min(timeout_s, congestion.bound_s), True
        return timeout_s, False

    def _refused(self, refusal: Refusal, call: Call, now: float, *, is_bounded: bool) -> Overloaded:
        if refusal.reason == "full":
            self._crew.note_refusal()
        if is_bounded:
            self._crew.congestion.refused(now)
        return Overloaded(_REFUSALS[refusal.reason].format(call.model), refusal.retry_after_s)

    async def _compute_in_worker(self, version: Version, call: Call, rows: int) -> Answer:
        now = time.monotonic()
        timeout_s, is_bounded = self._bound(call, now)
        deadline_s = now + timeout_s
        self._crew.wake()
        try:
            result = await self._crew.pool.run(
                version.key,
                call.inputs,
                size=rows,
                deadline_s=deadline_s,
                priority=call.priority,
                tenant=call.tenant,
            )
        except Refused as refused:
            if refused.refusal.reason == "unknown":
                return await self._ask_newer(version, call)
            raise self._refused(refused.refusal, call, now, is_bounded=is_bounded) from None
        except Expired:
            if is_bounded:
                self._crew.congestion.refused(now)
                raise Overloaded(f"{call.model}: too many requests wait; come again", 1.0) from None
            raise _late(call, timeout_s) from None
        except Lost as error:
            raise WorkerLost(f"{error}; ask again", retry_after_s=1.0) from None
        except Failed as error:
            # It passed its self-test: what it fails with is in the request.
            raise BadRequest(f"model {call.model!r} refused the inputs: {error}") from None
        return Answer(
            result.outputs,
            version.name,
            version.version,
            result.queue_s,
            result.compute_s,
            result.batch_size,
        )

    async def _ask_newer(self, gone: Version, call: Call) -> Answer:
        """A reload switched between the look at the version and its turn."""
        newest = self._catalogue.find(call.model, call.version)
        if newest is gone:
            raise NotReady(f"model {call.model!r} is being taken out of service", retry_after_s=1.0)
        return await self.infer(call)

    def _timeout_s(self, call: Call) -> float:
        most = self._config.timeout_s
        return most if call.timeout_s is None else min(most, call.timeout_s)


def _timed(run: Run, inputs: Arrays) -> tuple[float, float, dict[str, np.ndarray]]:
    start = time.perf_counter()
    outputs = run(inputs)
    return start, time.perf_counter() - start, outputs


def _late(call: Call, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"model {call.model!r} gave no answer within {timeout_s:g} s; ask again or wait longer"
    )


_REFUSALS = {
    "full": "{}: as many requests wait as may; come again",
    "late": "{}: the deadline cannot be met; come again or wait longer",
    "tenant": "{}: too many requests of this token wait; come again",
}
