"""What a loaded model does with made-up inputs: finite outputs, whether rows mix, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from statistics import median
from typing import Any
from zlib import crc32

import numpy as np

from edge.manifest import Tensor
from edge.pipeline import Pipeline

Arrays = Mapping[str, np.ndarray]

# Sizes of axes that may have any: texts and series take a short one, images need a large one.
AXIS_SIZES = (8, 32, 224, 1)
FILLS = ("random", "zeros", "ones")
# Between one run of several rows and several runs of one, as a share of the largest output. Where
# values are rounded to few bits, one step of rounding may fall the other way.
MIXING_TOLERANCE = {"float32": 1e-3}
ROUGH_TOLERANCE = 3e-2
# For measuring all batch sizes; what is not reached is left to the scheduler to learn.
MEASURE_S = 0.15
REPEATS = 5
# Of a run: a start does not wait for many of these.
LONG_S = 0.01


@dataclass(frozen=True)
class Samples:
    """Makes inputs that a model takes."""

    inputs: tuple[Tensor, ...]
    fill: str
    axis_size: int
    # What came of one row of them.
    outputs: Arrays = field(default_factory=dict, repr=False, compare=False)

    def rows(self, num_rows: int, fill: str = "") -> dict[str, np.ndarray]:
        """Inputs with so many rows on the first axis, where the model leaves it open.

        Those of fewer rows are the first ones of those of more.
        """
        return {
            tensor.name: _fill(tensor, self._shape(tensor, num_rows), fill or self.fill)
            for tensor in self.inputs
        }

    def _shape(self, tensor: Tensor, num_rows: int) -> tuple[int, ...]:
        batch = batch_axis(self.inputs)
        return tuple(
            axis if isinstance(axis, int) else num_rows if axis == batch else self.axis_size
            for axis in tensor.shape
        )


def _fill(tensor: Tensor, shape: tuple[int, ...], fill: str) -> np.ndarray:
    if fill == "zeros":
        return np.zeros(shape, tensor.dtype)
    if fill == "ones":
        return np.ones(shape, tensor.dtype)
    # By name: equal inputs would hide what becomes of their difference.
    random = np.random.default_rng(crc32(tensor.name.encode()))
    # Whole numbers may be places in a table of two: nothing larger is safe.
    if np.dtype(tensor.dtype).kind in "biu":
        return random.integers(0, 2, shape).astype(tensor.dtype)
    return random.standard_normal(shape).astype(tensor.dtype)


def batch_axis(inputs: Sequence[Tensor]) -> str:
    """The name of the first axis, if it is one and the same in all; else ""."""
    first = {tensor.shape[0] if tensor.shape else 0 for tensor in inputs}
    axis = first.pop() if len(first) == 1 else 0
    return axis if isinstance(axis, str) else ""


def find_samples(
    inputs: tuple[Tensor, ...], run: Callable[[Arrays], Mapping[str, np.ndarray]]
) -> Samples:
    """Inputs of one row with which a model runs and gives finite numbers.

    Raises:
        ValueError: none do; the message says what the runtime said.
    """
    is_open = any(isinstance(axis, str) for tensor in inputs for axis in tensor.shape[1:])
    is_open = is_open or not batch_axis(inputs)
    reason = ""
    for axis_size in AXIS_SIZES if is_open else AXIS_SIZES[:1]:
        for fill in FILLS:
            samples = Samples(inputs, fill, axis_size)
            try:
                outputs = run(samples.rows(1))
            except ValueError as error:
                reason = reason or f"{fill} are refused: {error}"
                continue
            bad = [name for name, value in outputs.items() if not _is_finite(value)]
            if not bad:
                return replace(samples, outputs=outputs)
            reason = reason or f"{fill} make output {bad[0]!r} NaN or infinite"
    raise ValueError(f"the self-test failed: {reason}")


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


@dataclass
class Timed:
    """Runs a pipeline and remembers what one row took at least."""

    predict: Callable[[Arrays], dict[str, np.ndarray]]
    row_s: float = inf

    def __call__(self, arrays: Arrays, rows: int = 1) -> dict[str, np.ndarray]:
        """Outputs by name."""
        start = time.perf_counter()
        outputs = self.predict(arrays)
        if rows == 1:
            self.row_s = min(self.row_s, time.perf_counter() - start)
        return outputs


def batch_obstacle(pipeline: Pipeline, samples: Samples, run: Timed) -> str:
    """Why rows of different requests may not run together; "" if they may.

    It is tried: two and three rows together must give what each gives alone; where a run is long,
    two must do.
    """
    axis = batch_axis(pipeline.inputs)
    if not axis:
        return "its inputs have no open first axis in common"
    for tensor in pipeline.outputs:
        if not tensor.shape or isinstance(tensor.shape[0], int):
            return f"output {tensor.name!r} has no open first axis"
    precision = pipeline.backend.facts.precision
    tolerance = MIXING_TOLERANCE.get(precision, ROUGH_TOLERANCE)
    rows = samples.rows(3, "random")

    def predict(start: int, end: int) -> dict[str, np.ndarray]:
        part = {name: array[start:end] for name, array in rows.items()}
        return run(part, rows=end - start)

    try:
        counts = (2, 3) if run.row_s < LONG_S else (2,)
        is_known = samples.fill == "random"
        alone = [samples.outputs if is_known else predict(0, 1)]
        alone += [predict(at, at + 1) for at in range(1, counts[-1])]
        together = {count: predict(0, count) for count in counts}
    except ValueError as error:
        return f"it does not take several rows: {error}"
    for count, outputs in together.items():
        for name, value in outputs.items():
            wanted = [one[name] for one in alone[:count]]
            if not all(one.ndim and len(one) == 1 for one in wanted) or len(value) != count:
                return f"output {name!r} has not one row for each row of the inputs"
            if not _is_close(value, np.concatenate(wanted), tolerance):
                return f"output {name!r} of a row depends on the other rows"
    return ""


def _is_close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    if found.shape != wanted.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    return bool(np.allclose(found, wanted, rtol=0, atol=tolerance * scale, equal_nan=True))


def measure(samples: Samples, max_batch: int, run: Timed) -> dict[int, float]:
    """Seconds of a warm run, by rows: 1, 2, 4, ... up to `max_batch`; long ones of one row only."""
    if run.row_s >= LONG_S:
        return {1: run.row_s}
    seconds: dict[int, float] = {}
    end = time.perf_counter() + MEASURE_S
    sizes = [1 << power for power in range(max_batch.bit_length())]
    for rows in sizes if sizes[-1] == max_batch else [*sizes, max_batch]:
        if seconds and time.perf_counter() > end:
            break
        sample = samples.rows(rows)
        taken: list[float] = []
        run(sample, rows)
        while len(taken) < REPEATS and (not taken or time.perf_counter() < end):
            start = time.perf_counter()
            run(sample, rows)
            taken.append(time.perf_counter() - start)
        seconds[rows] = median(taken)
    return seconds


def describe(pipeline: Pipeline, max_batch: int) -> dict[str, Any]:
    """What a pool wants to know of a model that was just loaded, as plain values.

    Its rows run together only if that was tried; a model whose inputs cannot be made up (coded
    images, say) is neither batched nor measured.
    """
    facts = pipeline.backend.facts
    seconds: dict[int, float] = {}
    run = Timed(pipeline.predict)
    try:
        samples = find_samples(pipeline.inputs, run)
    except ValueError as error:
        obstacle = str(error)
    else:
        obstacle = batch_obstacle(pipeline, samples, run) if max_batch > 1 else ""
        seconds = measure(samples, 1 if obstacle else max_batch, run)
    return {
        "backend": facts.backend,
        "runtime": facts.runtime,
        "precision": facts.precision,
        "seconds": list(seconds.items()),
        "max_batch": 1 if obstacle else max_batch,
        "obstacle": obstacle,
        "inputs": [asdict(tensor) for tensor in pipeline.inputs],
        "outputs": [asdict(tensor) for tensor in pipeline.outputs],
    }
