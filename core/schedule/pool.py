"""Workers behind a scheduler, for asyncio: arrays in, arrays out, none lost with a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.schedule.job import Device, Model, Scheduler

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class WorkerSpec:
    """One worker process."""

    id: str
    kind: str  # devices of one kind cost the same
    threads: int = 1
    cores: tuple[int, ...] = ()  # it is pinned to these; empty: not pinned
    target: str = "auto"  # of a bundle; or the backend for an ONNX file: onnxruntime, openvino


@dataclass(frozen=True)
class LoadedModel:
    """What a worker says of a model it loaded and tested."""

    key: str
    backend: str  # facts of edge.backends.Facts
    runtime: str
    precision: str
    seconds: Mapping[int, float]  # rows -> duration of a warm run


@dataclass(frozen=True)
class Result:
    """Outputs of one job, and what it took."""

    outputs: dict[str, np.ndarray]
    queue_s: float
    compute_s: float  # of its whole batch
    batch_size: int
    worker: str


class Refused(Exception):
    """The scheduler did not take the job; `refusal` says why."""


class Expired(Exception):
    """The deadline passed while the job waited."""


class Lost(Exception):
    """Two workers died under the job."""


class Failed(Exception):
    """The model refused the arrays or failed; the runtime's own words."""


@dataclass
class Pool:
    """Worker processes and the scheduler that feeds them; all methods belong to one event loop."""

    scheduler: Scheduler
    # Called after each batch: model, rows, jobs' queue delays (s), duration (s), worker.
    on_batch: Callable[[str, int, Sequence[float], float, str], None] | None = None
    _state: dict[str, Any] = field(default_factory=dict)

    async def start_worker(self, spec: WorkerSpec) -> None:
        """Start a process, load every model of the pool in it; it takes jobs once all are warm."""
        raise NotImplementedError

    async def stop_worker(self, worker_id: str) -> None:
        """Let it finish what it computes, then end it; waiting jobs go to the others."""
        raise NotImplementedError

    async def load(self, model: Model, file: Path, sha256: str) -> list[LoadedModel]:
        """Load a model in all workers, self-test it, measure it; then it takes jobs.

        Raises:
            ValueError: one worker refused it; it is unloaded everywhere again.
        """
        raise NotImplementedError

    async def unload(self, key: str) -> None:
        """Wait for its jobs, then drop it in all workers."""
        raise NotImplementedError

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

        Raises:
            Refused, Expired, Lost, Failed.
        """
        raise NotImplementedError

    @property
    def workers(self) -> Mapping[str, Device]:
        """Those that take jobs."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all workers; jobs that wait fail."""
        raise NotImplementedError
