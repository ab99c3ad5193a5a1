"""What the Open Inference Protocol tells of a service and its models, as JSON values."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.serve.engine import Served
from core.serve.oip import datatype
from edge.manifest import RUNTIME, Tensor

NAME = "deepkits"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
# The protocol's words for a version's state.
_STATES = {"loading": "LOADING", "ready": "READY", "draining": "UNLOADING", "failed": "UNAVAILABLE"}


def server() -> dict[str, Any]:
    """Answer to GET /v2."""
    return {"name": NAME, "version": RUNTIME, "extensions": list(EXTENSIONS)}


def model(served: Served, versions: Sequence[str]) -> dict[str, Any]:
    """Answer to GET /v2/models/{name}."""
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": served.platform,
        "inputs": [_tensor(tensor) for tensor in served.inputs],
        "outputs": [_tensor(tensor) for tensor in served.outputs],
        "parameters": {
            "version": served.version,
            "max_batch_size": served.max_batch,
            "description": served.description,
        },
    }


def configuration(served: Served) -> dict[str, Any]:
    """Answer to GET /v2/models/{name}/config, as far as other servers' clients read it."""
    return {
        "name": served.name,
        "platform": served.platform,
        "version_policy": {"latest": {"num_versions": 1}},
        # Shapes below have their batch axis, which is what 0 says.
        "max_batch_size": 0,
        "input": [_typed(tensor) for tensor in served.inputs],
        "output": [_typed(tensor) for tensor in served.outputs],
        "dynamic_batching": {} if served.max_batch > 1 else None,
    }


def index(catalogue: Sequence[Served], *, ready_only: bool) -> list[dict[str, str]]:
    """Answer to POST /v2/repository/index."""
    return [
        {
            "name": served.name,
            "version": served.version,
            "state": _STATES[served.state],
            "reason": served.reason,
        }
        for served in catalogue
        if served.state == "ready" or not ready_only
    ]


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": datatype(tensor.dtype), "shape": _shape(tensor)}


def _typed(tensor: Tensor) -> dict[str, Any]:
    kind = f"TYPE_{datatype(tensor.dtype)}"
    return {"name": tensor.name, "data_type": kind, "dims": _shape(tensor)}


def _shape(tensor: Tensor) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in tensor.shape]


@dataclass(slots=True)
class Count:
    """Requests of one kind and their time."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.ns += int(seconds * 1e9)

    def tell(self) -> dict[str, int]:
        """As the protocol has it."""
        return {"count": self.count, "ns": self.ns}


class _Counts:
    """Of one version since the service began."""

    __slots__ = ("compute", "fail", "last_ms", "queue", "success")

    def __init__(self) -> None:
        self.success, self.fail, self.queue, self.compute = Count(), Count(), Count(), Count()
        self.last_ms = 0


class Statistics:
    """What requests came and how long they took, for GET /v2/models/stats."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], _Counts] = defaultdict(_Counts)

    def succeed(
        self, served: tuple[str, str], seconds: float, queue_s: float, compute_s: float
    ) -> None:
        """A request was answered."""
        counts = self._counts[served]
        counts.success.add(seconds)
        counts.queue.add(queue_s)
        counts.compute.add(compute_s)
        counts.last_ms = int(time.time() * 1000)

    def fail(self, catalogue: Sequence[Served], name: str, version: str, seconds: float) -> None:
        """A request got an error; counted where it names a version that there is."""
        versions = [each.version for each in catalogue if each.name == name]
        if versions and (not version or version in versions):
            self._counts[name, version or versions[-1]].fail.add(seconds)

    def tell(self, catalogue: Sequence[Served]) -> dict[str, Any]:
        """Of some versions."""
        return {"model_stats": [self._version(served) for served in catalogue]}

    def _version(self, served: Served) -> dict[str, Any]:
        counts = self._counts.get((served.name, served.version)) or _Counts()
        return {
            "name": served.name,
            "version": served.version,
            "last_inference": counts.last_ms,
            "inference_count": counts.success.count,
            "inference_stats": {
                "success": counts.success.tell(),
                "fail": counts.fail.tell(),
                "queue": counts.queue.tell(),
                "compute_input": Count().tell(),
                "compute_infer": counts.compute.tell(),
                "compute_output": Count().tell(),
            },
        }
