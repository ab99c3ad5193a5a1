"""What stands behind the protocols: `Engine`, which REST, gRPC and the pages all call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from edge.manifest import Tensor

Arrays = Mapping[str, np.ndarray]
# starting: not warm yet; draining: takes no new request, finishes the others.
State = Literal["starting", "ready", "draining", "stopped"]
ModelState = Literal["loading", "ready", "draining", "failed"]


@dataclass(slots=True)
class Call:
    """One request, decoded; its inputs are not checked yet."""

    model: str
    inputs: Arrays
    version: str = ""  # "": the newest that is ready
    timeout_s: float | None = None  # from now; None: the service's own
    priority: int = 0  # the larger goes first
    tenant: str = ""  # whose fair share it uses: the token's name
    id: str = ""


@dataclass(frozen=True)
class Answer:
    """Outputs, and who gave them."""

    outputs: dict[str, np.ndarray]
    model: str
    version: str
    queue_s: float  # waited
    compute_s: float  # of the batch it was in
    batch_rows: int = 1  # that ran together


@dataclass(frozen=True)
class Served:
    """A version of a model, as the service offers it."""

    name: str
    version: str
    platform: str  # "onnx" or "bundle", with the runtime: "onnx-onnxruntime"
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int  # rows; 1: the model cannot be batched
    state: ModelState
    reason: str = ""  # why it failed
    description: str = ""  # intended use, from the bundle


class Engine(Protocol):
    """Loads models, schedules requests, keeps workers."""

    @property
    def state(self) -> State:
        """Of the whole service; ready only after every model is warm and passed its self-test."""
        ...

    def catalogue(self) -> Sequence[Served]:
        """All versions of all models, the newest of a model last."""
        ...

    def find(self, name: str, version: str = "") -> Served:
        """A version that is ready; "" takes the newest.

        Raises:
            NotFound: no such model or version; the message lists those there are.
            NotReady: it is loading or failed.
        """
        ...

    async def infer(self, call: Call) -> Answer:
        """Check the inputs, wait for the turn, compute.

        Cancelling the task that waits here takes the job out of the queue at once.

        Raises:
            ServeError: the subclass says what happened.
        """
        ...

    async def reload(self, name: str) -> Served:
        """Open the model's file again; if it differs, load it beside, self-test, switch, drain.

        Raises:
            BadRequest: the new file failed; the old version stays in service.
        """
        ...

    async def start(self) -> None:
        """Start workers, load and warm all models; `state` is ready afterwards.

        Raises:
            ValueError: a model cannot be served; the message names file and reason.
        """
        ...

    async def stop(self, drain_s: float) -> None:
        """Take no new request, finish the running ones within `drain_s`, stop the workers."""
        ...
