"""Jobs that run together: which can, their arrays in a row, their shares of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from core.schedule.devices import WorkerProcess
from core.schedule.job import Batch, Job
from core.schedule.wire import Frame, dtype_name

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Result:
    """Outputs of one job, and what it took."""

    outputs: dict[str, np.ndarray]
    queue_s: float
    compute_s: float  # of its whole batch
    batch_size: int
    worker: str


class Expired(Exception):
    """The deadline passed while the job waited."""


class Lost(Exception):
    """Two workers died under the job, or the pool was closed."""


class Failed(Exception):
    """The model refused the arrays or failed; the runtime's own words."""


@dataclass(slots=True, eq=False)
class Payload:
    """What a job carries past the scheduler."""

    inputs: Arrays
    future: asyncio.Future[Result]


@dataclass(slots=True, eq=False)
class Running:
    """A batch on a worker; one message for each group of jobs that fit together."""

    batch: Batch
    process: WorkerProcess
    on_done: Callable[[Running], None]
    latest_s: float  # when the worker is taken to hang
    compute_s: float = 0.0
    has_failed: bool = False  # one of its jobs at least
    is_over: bool = False
    _num_groups: int = 0  # not answered yet
    _held: list[list[Job]] = field(default_factory=list)  # of these, those not sent yet

    def start(self) -> None:
        """Send it; `on_done` is called once all is answered."""
        groups = group(self.batch.jobs)
        # One after the other where one may end the worker: the others are not to blame then.
        at_once = 1 if any(job.num_deaths for job in self.batch.jobs) else len(groups)
        self._num_groups, self._held = len(groups), groups[at_once:]
        for jobs in groups[:at_once]:
            self._send(jobs)

    def abandon(self) -> None:
        """The worker is gone."""
        self.is_over = True
        for job in chain.from_iterable(self._held):
            # It was not its turn: the scheduler, which counts this death, is not to mind it.
            job.num_deaths -= 1

    def _send(self, jobs: list[Job]) -> None:
        on_answer = partial(self._on_answer, jobs)
        try:
            self.process.send_run(self.batch.model, join(jobs), on_answer)
        except ValueError as error:
            frame = Frame(0, "error", {"message": str(error)}, {}, 0.0)
            asyncio.get_running_loop().call_soon(on_answer, frame)

    def _on_answer(self, jobs: list[Job], frame: Frame | None) -> None:
        if frame is None or self.is_over:
            return
        self.compute_s += frame.seconds
        batch = self.batch
        try:
            if frame.op == "error":
                raise ValueError(frame.content["message"])
            shares = split(frame.arrays, jobs)
        except ValueError as error:
            if len(jobs) > 1:
                # One of them spoils it for the others: each is tried alone.
                self._num_groups += len(jobs) - 1
                for job in jobs:
                    self._send([job])
                return
            self.has_failed = True
            give_up(jobs[0], Failed(str(error)))
        else:
            worker = self.process.spec.id
            for job, outputs in zip(jobs, shares, strict=True):
                queue_s = batch.started_s - job.arrived_s
                result = Result(outputs, queue_s, frame.seconds, batch.size, worker)
                if not job.payload.future.done():
                    job.payload.future.set_result(result)
        self._num_groups -= 1
        if self._held:
            self._send(self._held.pop(0))
        if not self._num_groups:
            self.is_over = True
            self.on_done(self)


def give_up(job: Job, error: Exception) -> None:
    """Answer a job with an error, unless it is answered or cancelled."""
    if not job.payload.future.done():
        job.payload.future.set_exception(error)


def group(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs whose arrays differ in the first axis alone, together; they keep their order.

    A job that lost a worker comes last and alone: it may have been its fault.
    """
    if len(jobs) == 1:
        return [list(jobs)]
    groups: dict[Any, list[Job]] = {}
    suspects = []
    for job in jobs:
        if job.num_deaths:
            suspects.append([job])
            continue
        key = tuple(
            (name, array.dtype, array.shape[1:])
            for name, array in sorted(job.payload.inputs.items())
        )
        groups.setdefault(key, []).append(job)
    return [*groups.values(), *suspects]


def join(jobs: Sequence[Job]) -> dict[str, list[np.ndarray]]:
    """The arrays of a group as `wire.pack` takes them; nothing is copied."""
    first = jobs[0].payload.inputs
    return {name: [job.payload.inputs[name] for job in jobs] for name in first}


def split(outputs: dict[str, np.ndarray], jobs: Sequence[Job]) -> list[dict[str, np.ndarray]]:
    """Each job's rows of the outputs.

    They are views: all jobs of a batch share its memory, which is free once the last is dropped.

    Raises:
        ValueError: an output has another number of rows than the jobs together.
    """
    if len(jobs) == 1:
        return [outputs]
    num_rows = sum(job.size for job in jobs)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != num_rows:
            raise ValueError(
                f"output {name!r} has shape {array.shape} for {num_rows} rows of inputs; load the "
                "model with max_batch=1"
            )
    shares, start = [], 0
    for job in jobs:
        end = start + job.size
        shares.append({name: array[start:end] for name, array in outputs.items()})
        start = end
    return shares


def check_inputs(inputs: Arrays, size: int, max_batch: int) -> None:
    """Make sure that a job can stand beside others in a batch.

    Raises:
        ValueError: more rows than run together, or an input has another number of them, or a type
            that is not sent.
    """
    for name, array in inputs.items():
        dtype_name(array, name)
    if not 1 <= size <= max_batch:
        raise ValueError(f"size={size} is not in 1 to {max_batch}, the model's most; send less")
    if max_batch == 1:
        return
    for name, array in inputs.items():
        if array.ndim == 0 or len(array) != size:
            raise ValueError(f"input {name!r} has shape {array.shape}, size={size} rows are said")
