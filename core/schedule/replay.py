"""Replayed devices: workers that sleep recorded times behind the real sockets and queues.

`record` writes down how long a real worker takes; a worker that loads the file afterwards, under
the kind of device that was recorded, takes as long and answers zeros.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import numpy as np

from core.schedule.devices import Gone, WorkerProcess
from core.schedule.fleet import LoadedModel
from core.schedule.trial import Samples, batch_axis
from core.schedule.wire import Frame
from edge.manifest import Tensor

SCHEMA = "deepkits.replay/1"
# Spun rather than slept at the end of a pause: what a wake-up takes.
SPIN_S = 60e-6
# Of each size, for `record`.
WARM_UP = 3


@dataclass(frozen=True)
class Replay:
    """A model as one kind of device runs it."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    facts: Mapping[str, str]  # backend, runtime, precision of what was recorded
    sizes: tuple[int, ...]  # rows, ascending
    seconds: tuple[np.ndarray, ...]  # of each size, ascending
    random: np.random.Generator

    @classmethod
    def open(cls, path: Path, sha256: str, kind: str, worker: str) -> Replay:
        """Read a recording.

        Args:
            path: what `write_recording` wrote.
            sha256: of the file; "" takes what is there.
            kind: of device; the file may hold several.
            worker: its id; equal ones draw equal times.
        Raises:
            ValueError: another file than meant, not a recording, or without that kind.
            OSError: it cannot be read.
        """
        data = path.read_bytes()
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"{path.name} is not the file that is meant; it changed meanwhile")
        content = json.loads(data)
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise ValueError(f"{path.name} is not of schema {SCHEMA}; record it again")
        if kind not in content["kinds"]:
            there = ", ".join(content["kinds"])
            raise ValueError(f"{path.name} has no times of kind {kind!r}; it has {there}")
        recorded = content["kinds"][kind]
        times = {int(rows): np.sort(np.asarray(s)) for rows, s in recorded["seconds"].items()}
        if not times or any(
            not (len(s) and s[0] > 0 and np.isfinite(s).all()) for s in times.values()
        ):
            raise ValueError(f"{path.name} has no or impossible times of kind {kind!r}")
        sizes = tuple(sorted(times))
        return cls(
            inputs=_tensors(content["inputs"]),
            outputs=_tensors(content["outputs"]),
            facts={name: str(recorded[name]) for name in ("backend", "runtime", "precision")},
            sizes=sizes,
            seconds=tuple(times[size] for size in sizes),
            random=np.random.default_rng(crc32(f"{worker} {sha256}".encode())),
        )

    def draw_s(self, rows: int) -> float:
        """How long a run of so many rows takes this time.

        Between two recorded sizes as if both were drawn at the same quantile; beyond the largest,
        or below the smallest, in proportion to the rows.
        """
        quantile = float(self.random.random())
        at = bisect_left(self.sizes, rows)
        if at == len(self.sizes):
            return float(np.quantile(self.seconds[-1], quantile)) * rows / self.sizes[-1]
        upper = float(np.quantile(self.seconds[at], quantile))
        if at == 0 or self.sizes[at] == rows:
            return upper
        lower = float(np.quantile(self.seconds[at - 1], quantile))
        share = (rows - self.sizes[at - 1]) / (self.sizes[at] - self.sizes[at - 1])
        return lower + share * (upper - lower)

    def predict(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Zeros, after a recorded time."""
        end = time.perf_counter()
        rows = self._rows(sample)
        end += self.draw_s(rows)
        sleep_until(end)
        batch = batch_axis(self.inputs)
        return {
            tensor.name: np.zeros(
                [
                    axis if isinstance(axis, int) else rows if axis == batch else 1
                    for axis in tensor.shape
                ],
                tensor.dtype,
            )
            for tensor in self.outputs
        }

    def describe(self, max_batch: int) -> dict[str, Any]:
        """As `core.schedule.trial.describe`, from what was recorded."""
        is_batched = bool(batch_axis(self.inputs))
        times = zip(self.sizes, self.seconds, strict=True)
        return {
            **self.facts,
            "seconds": [(rows, median(map(float, s))) for rows, s in times if rows <= max_batch],
            "max_batch": max_batch if is_batched else 1,
            "obstacle": "" if is_batched else "its inputs have no open first axis in common",
            "inputs": [asdict(tensor) for tensor in self.inputs],
            "outputs": [asdict(tensor) for tensor in self.outputs],
        }

    def _rows(self, sample: Mapping[str, np.ndarray]) -> int:
        if not batch_axis(self.inputs):
            return 1
        return len(sample[self.inputs[0].name])


def sleep_until(end: float) -> None:
    """Return at a moment of `time.perf_counter`, within microseconds on a free core."""
    pause_s = end - time.perf_counter() - SPIN_S
    if pause_s > 0:
        time.sleep(pause_s)
    while time.perf_counter() < end:
        pass


async def record(
    process: WorkerProcess, loaded: LoadedModel, sizes: Sequence[int], repeats: int = 30
) -> dict[str, Any]:
    """Measure a model in a real worker that has it loaded and does nothing else.

    Returns:
        one kind's entry for `write_recording`.
    Raises:
        ValueError: the model does not take inputs that can be made up.
        Gone: the worker ended.
    """
    seconds: dict[str, list[float]] = {}
    for rows in sizes:
        taken = [await _run_once(process, loaded, rows) for _ in range(WARM_UP + repeats)]
        seconds[str(rows)] = taken[WARM_UP:]
    return {
        "backend": loaded.backend,
        "runtime": loaded.runtime,
        "precision": loaded.precision,
        "seconds": seconds,
    }


async def _run_once(process: WorkerProcess, loaded: LoadedModel, rows: int) -> float:
    answer: asyncio.Future[Frame | None] = asyncio.get_running_loop().create_future()
    sample = Samples(loaded.inputs, "random", axis_size=8).rows(rows)
    process.send_run(loaded.key, {k: [v] for k, v in sample.items()}, answer.set_result)
    frame = await answer
    if frame is None:
        raise Gone(process.describe_end())
    if frame.op == "error":
        raise ValueError(frame.content["message"])
    return frame.seconds


def write_recording(
    path: Path, loaded: LoadedModel, kinds: Mapping[str, Mapping[str, Any]], origin: str
) -> str:
    """Write what was recorded of a model on some kinds of device; the sha256 of the file.

    Args:
        path: it should end in .json.
        loaded: its inputs and outputs count.
        kinds: kind of device -> what `record` gave.
        origin: where and how the times were measured, for whoever reads the file.
    """
    content = {
        "schema": SCHEMA,
        "origin": origin,
        "inputs": [asdict(tensor) for tensor in loaded.inputs],
        "outputs": [asdict(tensor) for tensor in loaded.outputs],
        "kinds": kinds,
    }
    data = (json.dumps(content, indent=1) + "\n").encode()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _tensors(content: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(one["name"], one["dtype"], tuple(one["shape"])) for one in content)
