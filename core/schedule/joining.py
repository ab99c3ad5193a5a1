"""Jobs that run together: which can, their arrays in a row, their shares of the outputs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.schedule.job import Batch, Job
from core.schedule.wire import dtype_name

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Result:
    """Outputs of one job, and what it took."""

    outputs: dict[str, np.ndarray]
    queue_s: float
    compute_s: float  # of its whole batch
    batch_size: int
    worker: str


@dataclass(slots=True, eq=False)
class Payload:
    """What a job carries past the scheduler."""

    inputs: Arrays
    future: asyncio.Future[Result]


@dataclass(slots=True, eq=False)
class Running:
    """A batch on a worker; one message for each group of jobs that fit together."""

    batch: Batch
    num_groups: int  # not answered yet
    held: list[list[Job]]  # of these, those not sent yet
    latest_s: float  # when the worker is taken to hang
    compute_s: float = 0.0
    has_failed: bool = False


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
