"""What is scheduled: jobs on devices, in batches, by one of several rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, Protocol

# full: the queue is; late: no device can make the deadline; tenant: it has its share of the queue
# already; unknown: no device has the model.
Reason = Literal["full", "late", "tenant", "unknown"]


@dataclass(slots=True, eq=False)
class Job:
    """One request for one model; times are seconds on the clock of whoever calls the scheduler."""

    model: str  # "name@version"
    arrived_s: float
    deadline_s: float = inf
    size: int = 1  # rows along the batch axis
    priority: int = 0  # the larger goes first
    tenant: str = ""
    payload: Any = None  # the scheduler never looks inside
    num_deaths: int = 0  # devices that died while computing it


@dataclass(frozen=True)
class Device:
    """A worker; devices of one kind cost the same."""

    id: str
    kind: str  # as "onnxruntime-int8"


@dataclass(frozen=True)
class Model:
    """What a scheduler has to know of a model."""

    key: str  # "name@version"
    max_batch: int = 1  # rows in one run; 1: the model cannot be batched
    kinds: frozenset[str] = frozenset()  # of devices that have it; empty: all
    slo_s: float = inf  # what most answers should take, queueing included


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs of one model that run together on one device."""

    device: str
    model: str
    jobs: list[Job]
    size: int
    started_s: float
    expected_s: float  # duration


@dataclass(frozen=True)
class Refusal:
    """Why a job was not taken, and when to come back."""

    reason: Reason
    retry_after_s: float


class Scheduler(Protocol):
    """A rule. It starts nothing itself: it is told what happened and says what to start.

    The same object runs in front of real workers, replayed ones and simulated ones.
    """

    def add_device(self, device: Device, now: float) -> None:
        """A device is there and idle."""
        ...

    def retire_device(self, device_id: str, now: float) -> None:
        """It gets no further batch; what it computes will still `finish`."""
        ...

    def drop_device(self, device_id: str, now: float) -> list[Job]:
        """It is gone. Its jobs are queued again; those that lost a device before come back."""
        ...

    def set_model(self, model: Model, now: float) -> None:
        """A model is loaded, or what is known of it changed."""
        ...

    def drop_model(self, key: str, now: float) -> list[Job]:
        """No further job of it; gives back those that wait."""
        ...

    def submit(self, job: Job, now: float) -> Refusal | None:
        """Take a job, or say at once why not."""
        ...

    def cancel(self, job: Job, now: float) -> bool:
        """Forget a job that waits; False: it runs already or is not here."""
        ...

    def dispatch(self, now: float) -> Sequence[Batch]:
        """What to start now; to be asked after every other call and at `next_event`."""
        ...

    def finish(self, batch: Batch, now: float) -> None:
        """A batch is computed; its device is idle again and its cost is learnt."""
        ...

    def expire(self, now: float) -> list[Job]:
        """Take out the waiting jobs that can no longer make their deadline."""
        ...

    def next_event(self, now: float) -> float:
        """When to ask `dispatch` and `expire` again if nothing happens before; may be inf."""
        ...

    def queue_delay_s(self, now: float) -> float:
        """How long the oldest waiting job waits; 0 when none does."""
        ...
