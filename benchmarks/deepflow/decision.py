"""What a decision costs: the scheduler's own time per request, in the simulator."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from core.schedule.job import Batch, Device, Job, Model, Refusal, Scheduler
from core.schedule.simulate import Scene, simulate


class Timed:
    """Passes on to a scheduler and takes the time of each call.

    A request pays for its `submit` and the `dispatch` and `next_event` after it, and with the
    others of its batch for `finish` and the `dispatch` and `next_event` after that. `expire`,
    which renews the plan, is called by a timer and kept apart.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._inner = scheduler
        self.per_job_ns: dict[int, float] = {}
        self.timer_ns: list[int] = []
        self._payers: list[int] = []
        self._jobs: list[Job] = []  # kept, so that no identity is used twice

    def _pay(self, nanoseconds: float) -> None:
        if self._payers:
            share = nanoseconds / len(self._payers)
            for payer in self._payers:
                self.per_job_ns[payer] = self.per_job_ns.get(payer, 0.0) + share

    def submit(self, job: Job, now: float) -> Refusal | None:
        """See `Scheduler`, as for all below."""
        started = perf_counter_ns()
        refusal = self._inner.submit(job, now)
        taken = perf_counter_ns() - started
        self._jobs.append(job)
        self._payers = [id(job)]
        self._pay(taken)
        return refusal

    def dispatch(self, now: float) -> Sequence[Batch]:
        """What to start."""
        started = perf_counter_ns()
        batches = self._inner.dispatch(now)
        self._pay(perf_counter_ns() - started)
        return batches

    def next_event(self, now: float) -> float:
        """When to ask again."""
        started = perf_counter_ns()
        when = self._inner.next_event(now)
        self._pay(perf_counter_ns() - started)
        return when

    def finish(self, batch: Batch, now: float) -> None:
        """A batch is computed."""
        started = perf_counter_ns()
        self._inner.finish(batch, now)
        taken = perf_counter_ns() - started
        self._payers = [id(job) for job in batch.jobs]
        self._pay(taken)

    def expire(self, now: float) -> list[Job]:
        """Those that are too late."""
        started = perf_counter_ns()
        jobs = self._inner.expire(now)
        self.timer_ns.append(perf_counter_ns() - started)
        self._payers = []
        return jobs

    def add_device(self, device: Device, now: float) -> None:
        """A device is there."""
        self._inner.add_device(device, now)

    def retire_device(self, device_id: str, now: float) -> None:
        """It gets no further batch."""
        self._inner.retire_device(device_id, now)

    def drop_device(self, device_id: str, now: float) -> list[Job]:
        """It is gone."""
        return self._inner.drop_device(device_id, now)

    def set_model(self, model: Model, now: float) -> None:
        """A model is loaded."""
        self._inner.set_model(model, now)

    def drop_model(self, key: str, now: float) -> list[Job]:
        """No further job of it."""
        return self._inner.drop_model(key, now)

    def cancel(self, job: Job, now: float) -> bool:
        """Forget a waiting job."""
        return self._inner.cancel(job, now)

    def queue_delay_s(self, now: float) -> float:
        """Of the oldest job."""
        return self._inner.queue_delay_s(now)


def decision_cost(
    scheduler: Scheduler, scene: Scene, rate: float, *, num_jobs: int, has_gc: bool
) -> dict[str, Any]:
    """Microseconds per request, and of the timer's calls in between.

    Args:
        scheduler: fresh.
        scene: what it has to do.
        rate: jobs per second.
        num_jobs: offered.
        has_gc: the garbage collector runs as it does by default.
    """
    timed = Timed(scheduler)
    gc.collect()
    if not has_gc:
        gc.disable()
    try:
        simulate(timed, scene, rate, num_jobs=num_jobs)
    finally:
        gc.enable()
    us = np.array(list(timed.per_job_ns.values())) / 1e3
    timer_us = np.array(timed.timer_ns or [0]) / 1e3
    quantiles = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    row: dict[str, Any] = {"garbage_collector": has_gc, "requests": len(us)}
    row["per_request_us"] = {k: round(float(np.quantile(us, q)), 2) for k, q in quantiles.items()}
    row["per_request_us"]["mean"] = round(float(us.mean()), 2)
    row["timer"] = {
        "calls": len(timed.timer_ns),
        "p50_us": round(float(np.median(timer_us)), 1),
        "max_us": round(float(timer_us.max()), 1),
        "share_of_time": round(float(timer_us.sum() / (us.sum() + timer_us.sum())), 4),
    }
    return row
