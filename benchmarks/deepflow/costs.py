"""What each model costs on each kind of worker at each batch: measured on one core, one thread.

A child process per kind, pinned, takes the models in turns, so that a disturbance hits all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.deepflow import models

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RECORDED = models.WORK / "costs.json"


@dataclass(frozen=True, eq=False)
class Costs:
    """Seconds of single runs, in the order in which they were measured."""

    seconds: Mapping[tuple[str, str, int], tuple[float, ...]]  # model, kind, batch

    def typical(self, model: str, kind: str, batch: int) -> float:
        """Median of the runs, in seconds."""
        return float(np.median(self.seconds[model, kind, batch]))

    def median_table(self) -> dict[tuple[str, str, int], float]:
        """The medians of all."""
        return {key: float(np.median(runs)) for key, runs in self.seconds.items()}

    def slowest_alone_s(self, model: str, kinds: Sequence[str]) -> float:
        """Of a batch of 1, on the slowest of some kinds."""
        return max(self.typical(model, kind, 1) for kind in kinds)

    def save(self, path: Path = RECORDED) -> None:
        """Write all runs, in microseconds."""
        rows = [
            {"model": model, "kind": kind, "batch": batch, "us": [round(s * 1e6, 1) for s in runs]}
            for (model, kind, batch), runs in self.seconds.items()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))

    @classmethod
    def load(cls, path: Path = RECORDED) -> Costs:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: nothing was measured yet.
        """
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; run `python -m benchmarks.deepflow costs`"
            )
        rows = json.loads(path.read_text())
        return cls(
            {
                (row["model"], row["kind"], row["batch"]): tuple(us / 1e6 for us in row["us"])
                for row in rows
            }
        )

    def table(self) -> list[dict[str, object]]:
        """A row per model, kind and batch, in milliseconds, with its spread."""
        rows: list[dict[str, object]] = []
        for (model, kind, batch), runs in self.seconds.items():
            low, median, high = np.quantile(runs, (0.25, 0.5, 0.75)) * 1e3
            row: dict[str, object] = {"model": model, "kind": kind, "batch": batch}
            row |= {"runs": len(runs), "ms": _round(median)}
            row |= {"quartiles_ms": [_round(low), _round(high)]}
            rows.append(row | {"rows_per_s": round(batch / median * 1e3, 1)})
        return rows


def measure(seconds_per_cell: float, core: int, rounds: int = 3) -> Iterator[Costs]:
    """Measure kind after kind; gives what is known after each."""
    found: dict[tuple[str, str, int], tuple[float, ...]] = {}
    for name in models.MODELS:
        models.bundle(name)
    for kind in models.KINDS:
        command = [sys.executable, "-m", "benchmarks.deepflow.costs", kind, str(core)]
        done = subprocess.run(
            [*command, str(seconds_per_cell / rounds), str(rounds)],
            cwd=models.ROOT, capture_output=True, text=True, check=False, env=environment(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"kind={kind!r} could not be measured: {done.stderr[-2000:]}")
        for model, batch, runs in json.loads(done.stdout):
            found[model, kind, batch] = tuple(runs)
        yield Costs(dict(found))


def environment() -> dict[str, str]:
    """Of a child: one thread, and the keys that signed the bundles."""
    return os.environ | {"OMP_NUM_THREADS": "1", "DEEPKITS_HOME": str(models.KEYS)}


def _measure_kind(kind: str, core: int, seconds: float, rounds: int) -> list[list[object]]:
    from edge.pipeline import Pipeline

    os.sched_setaffinity(0, {core})
    runs: dict[tuple[str, int], list[float]] = {}
    predict = {}
    for name in models.MODELS:
        pipeline = Pipeline.open(models.bundle(name), kind, threads=1)
        for batch in (size for size in BATCHES if size <= models.max_batch(name)):
            sample = models.inputs_of(name, batch)
            for _ in range(3):
                pipeline.predict(sample)
            predict[name, batch] = (pipeline, sample)
            runs[name, batch] = []
    for _ in range(rounds):
        for key, (pipeline, sample) in predict.items():
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                started = time.perf_counter()
                pipeline.predict(sample)
                runs[key].append(time.perf_counter() - started)
    return [[name, batch, times] for (name, batch), times in runs.items()]


def _round(milliseconds: float) -> float:
    return float(f"{milliseconds:.4g}")


if __name__ == "__main__":
    kind_, core_, seconds_, rounds_ = sys.argv[1:]
    print(json.dumps(_measure_kind(kind_, int(core_), float(seconds_), int(rounds_))))
