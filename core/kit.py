"""What a kit fills in: a `Kit` value, a `Task` to train, a `Service` to answer requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from core.convert.source import Source
    from edge.target import Tolerance

Split = Literal["train", "validation", "test"]

Batch = TypeVar("Batch")
RequestT = TypeVar("RequestT", contravariant=True)
ResponseT = TypeVar("ResponseT", covariant=True)


@dataclass(frozen=True)
class Step:
    """What one batch gave: the loss to follow and what to log beside it."""

    loss: Tensor  # scalar
    logs: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol[Batch]):
    """All that a trainer, a distiller or an exporter may know about a model and its data."""

    model: nn.Module

    def batches(self, split: Split) -> Iterable[Batch]:
        """Batches of a split; a fresh pass at each call."""
        ...

    def step(self, batch: Batch) -> Step:
        """Loss of one batch, with the graph for its backward pass."""
        ...

    def evaluate(self, split: Split) -> dict[str, float]:
        """Metrics of the model over a whole split."""
        ...

    def example(self) -> dict[str, Tensor]:
        """One input with a batch of 1: what an exporter traces and compares."""
        ...


class Service(Protocol[RequestT, ResponseT]):
    """The shape of a kit's requests and responses; batching belongs to the server."""

    request_schema: Mapping[str, Any]  # JSON schema, with an example: the service's OpenAPI page
    response_schema: Mapping[str, Any]

    def decode(self, request: RequestT) -> dict[str, np.ndarray]:
        """Arrays for one prediction."""
        ...

    def encode(self, outputs: Mapping[str, np.ndarray]) -> ResponseT:
        """The answer to one prediction."""
        ...


Arrays = Mapping[str, "np.ndarray"]
# Of a task metric: takes the model's inputs and outputs by name, gives numbers by name.
Metric = Callable[[Callable[[Arrays], Arrays]], dict[str, float]]


@dataclass(frozen=True)
class Exportable:
    """A run's trained model as its bundle needs it: what is converted, and all that goes with it.

    Arrays that leave the machine are drawn by `source`; the calibration samples stay in the run.
    """

    source: Source
    pre: Sequence[Mapping[str, Any]]  # steps of edge/ops.py before the model
    post: Sequence[Mapping[str, Any]]  # steps behind it
    calibration: Arrays  # input -> (samples, ...) real inputs, after the pre steps
    metric: Metric | None  # what the model is worth, for compression; None: it has no metric
    metric_name: str  # the key in what `metric` gives; larger is better
    config_schema: Mapping[str, Any]  # JSON schema of what a site may set
    config_default: Mapping[str, Any]
    provenance: Mapping[str, Any]  # of the model beyond what every run records
    license: str
    intended_use: str
    # What `predict` takes where pre steps change it, as a manifest lists inputs; else the model's.
    inputs: Sequence[Mapping[str, Any]] = ()
    # Beginnings of the names of weights whose layers stay in float when the model is quantised.
    float_weights: Sequence[str] = ()
    # By precision, where this model's numbers ask for another than the usual.
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)


@dataclass(frozen=True)
class Kit:
    """A kit as a value; `kits/<name>/kit.py` holds it as `KIT`.

    The builders import inside, so that a kit's configuration loads no torch.
    """

    name: str  # = folder in kits/ = folder in configs/
    schemas: Mapping[str, type]  # verb -> dataclass
    groups: Mapping[str, Mapping[str, type]]  # config group -> option -> dataclass
    build_task: Callable[[Any], Task[Any]]
    build_service: Callable[[Any], Service[Any, Any]]
    open_run: Callable[[Path], Exportable]  # a finished run's folder -> its model
