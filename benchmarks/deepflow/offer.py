"""Requests offered at their times to a pool of workers, and what became of them.

Open loop: a request is sent when it is due, whatever became of those before it, and its latency
counts from when it was due.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.deepflow.mixes import GOOD_SHARE, Arrivals
from core.schedule.pool import Expired, Lost, Pool, Refused

# Ahead of the first request, so that it is not late.
LEAD_S = 0.05
# When behind, the generator lets others run after so many requests.
YIELD_EVERY = 8


@dataclass(slots=True)
class Tally:
    """What became of the requests for one model."""

    slo_s: float
    offered: int = 0
    in_time: int = 0
    refused: int = 0  # at once, or given up while waiting
    lost: int = 0
    latencies_s: list[float] = field(default_factory=list)  # of all answered

    @property
    def share(self) -> float:
        """Of the offered, answered within the SLO."""
        return self.in_time / self.offered if self.offered else 1.0

    def summary(self) -> dict[str, Any]:
        """Plain values."""
        row: dict[str, Any] = {"offered": self.offered, "in_time": round(self.share, 4)}
        row |= {"refused": self.refused, "lost": self.lost, "slo_ms": round(self.slo_s * 1e3, 1)}
        if self.latencies_s:
            for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
                row[name] = round(float(np.quantile(self.latencies_s, q)) * 1e3, 2)
        return row


@dataclass(frozen=True)
class Span:
    """A batch on a worker."""

    worker: str
    model: str
    start_s: float
    end_s: float
    rows: int


@dataclass(frozen=True)
class Outcome:
    """One run."""

    rate: float  # requests per second offered, on average
    seconds: float
    models: Mapping[str, Tally]
    spans: Sequence[Span] = ()
    misses: Sequence[tuple[float, str]] = ()  # when due, and of which model: late or refused
    dispatcher_share: float = 0.0  # of a core, taken by the process that offers and dispatches

    @property
    def worst_share(self) -> float:
        """Of the model that was answered in time least often."""
        return min(tally.share for tally in self.models.values())

    @property
    def is_good(self) -> bool:
        """Whether every model's requests were answered in time often enough."""
        return self.worst_share >= GOOD_SHARE

    @property
    def goodput(self) -> float:
        """Requests per second answered in time."""
        return sum(tally.in_time for tally in self.models.values()) / self.seconds

    def summary(self) -> dict[str, Any]:
        """Plain values, without the spans."""
        return {
            "rate": round(self.rate, 1),
            "goodput": round(self.goodput, 1),
            "worst_share": round(self.worst_share, 4),
            "dispatcher_share": round(self.dispatcher_share, 3),
            "models": {name: tally.summary() for name, tally in self.models.items()},
        }


class Recorder:
    """The spans of a pool's batches; its `batch` is `Pool.on_batch`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def batch(
        self, model: str, rows: int, delays: Sequence[float], duration: float, worker: str
    ) -> None:
        """A batch has just ended."""
        del delays
        now = time.monotonic()
        self.spans.append(Span(worker, model.split("@")[0], now - duration, now, rows))


@dataclass(frozen=True)
class Request:
    """One request of a stream, as often as it is asked for."""

    model: str
    inputs: Mapping[str, np.ndarray]
    rows: int
    slo_s: float  # also its deadline


async def offer(
    pool: Pool,
    requests: Sequence[Request],
    asked: Arrivals,
    *,
    rate: float,
    warm_up_s: float,
    seconds: float,
    recorder: Recorder,
) -> Outcome:
    """Send all requests and wait until none is open.

    Args:
        pool: with all models loaded.
        requests: of each stream.
        asked: when, and of which stream.
        rate: of the arrivals, for the record.
        warm_up_s: of the arrivals, which do not count.
        seconds: after those.
        recorder: of the pool; its spans are given back in seconds from the end of the warm-up.
    """
    tallies = {request.model: Tally(request.slo_s) for request in requests}
    warming = Tally(0.0)
    misses: list[tuple[float, str]] = []
    open_tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()

    async def one(request: Request, due: float) -> None:
        tally = tallies[request.model] if due >= start else warming
        tally.offered += 1
        is_in_time = False
        try:
            await pool.run(
                key(request.model),
                request.inputs,
                size=request.rows,
                deadline_s=due + request.slo_s,
            )
        except (Refused, Expired):
            tally.refused += 1
        except Lost:
            tally.lost += 1
        else:
            latency = time.monotonic() - due
            tally.latencies_s.append(latency)
            is_in_time = latency <= request.slo_s
            tally.in_time += is_in_time
        finally:
            if not is_in_time:
                misses.append((due - start, request.model))

    errors: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        open_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            errors.append(error)

    recorder.spans.clear()
    gc.collect()
    gc.freeze()
    start = time.monotonic() + LEAD_S + warm_up_s
    cpu_s = time.process_time()
    for number, (at, index) in enumerate(
        zip(asked.times_s.tolist(), asked.stream.tolist(), strict=True)
    ):
        due = start - warm_up_s + at
        wait = due - time.monotonic()
        if wait > 0 or number % YIELD_EVERY == 0:
            await asyncio.sleep(max(0.0, wait))
        task = loop.create_task(one(requests[index], due))
        open_tasks.add(task)
        task.add_done_callback(ended)
    share = (time.process_time() - cpu_s) / (warm_up_s + seconds)
    await _drain(pool, open_tasks, max(request.slo_s for request in requests))
    gc.unfreeze()
    if errors:
        raise errors[0]
    spans = [
        Span(span.worker, span.model, span.start_s - start, span.end_s - start, span.rows)
        for span in recorder.spans
    ]
    return Outcome(rate, seconds, tallies, spans, misses, share)


async def _drain(pool: Pool, tasks: set[asyncio.Task[None]], slo_s: float) -> None:
    """What is not answered within the longest SLO will not be in time any more."""
    if tasks:
        await asyncio.wait(list(tasks), timeout=slo_s)
    for task in list(tasks):
        task.cancel()
    if tasks:
        await asyncio.wait(list(tasks))
    # Batches that run for nobody now.
    while pool.num_waiting:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)


def key(model: str) -> str:
    """Of a model in a pool."""
    return f"{model}@1"
