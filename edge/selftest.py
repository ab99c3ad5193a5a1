"""A loaded model beside the golden outputs of its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.backends import Arrays, Backend
from edge.manifest import Tensor
from edge.target import Target, Tolerance

VECTORS = "selftest/vectors.npz"
MIN_ROWS = 8


@dataclass(frozen=True)
class SelfTest:
    """How far the loaded model lay from the golden outputs in the bundle."""

    num_rows: int
    max_error: Mapping[str, float]  # output -> largest absolute difference
    tolerance: Tolerance


def run_self_test(
    backend: Backend, vectors: Arrays, target: Target, inputs: Sequence[Tensor]
) -> tuple[SelfTest, dict[str, np.ndarray]]:
    """Compare the loaded model with the golden outputs.

    Args:
        backend: the loaded model.
        vectors: `input/<name>` of the model and `output/<name>`, rows on the first axis.
        target: its tolerance counts.
        inputs: of the manifest; a model of a fixed batch gets as many rows at a time.
    Returns:
        what was measured; the model's outputs.
    Raises:
        ValueError: names, shapes or values differ; the message names the worst output.
    """
    given = {k.removeprefix("input/"): v for k, v in vectors.items() if k.startswith("input/")}
    golden = {k.removeprefix("output/"): v for k, v in vectors.items() if k.startswith("output/")}
    for what, names, wanted in (
        ("inputs", given, backend.input_names),
        ("outputs", golden, backend.output_names),
    ):
        if set(names) != set(wanted) or not names:
            raise ValueError(
                f"{VECTORS} has {what} {', '.join(sorted(names)) or 'none'}, the model of target "
                f"{target.id!r} has {', '.join(wanted)}; pack the bundle again"
            )
    num_rows = min(len(array) for array in golden.values())
    if num_rows < MIN_ROWS:
        raise ValueError(f"{VECTORS} has {num_rows} rows, it needs {MIN_ROWS}; pack it again")
    found = _run_rows(backend, given, inputs)
    errors = {
        name: _compare(found[name], golden[name], name, target) for name in backend.output_names
    }
    return SelfTest(num_rows, errors, target.tolerance), found


def _run_rows(backend: Backend, given: Arrays, inputs: Sequence[Tensor]) -> dict[str, np.ndarray]:
    batches = {tensor.shape[0] if tensor.shape else "" for tensor in inputs}
    batch, num_rows = next(iter(batches)), len(next(iter(given.values())))
    if len(batches) != 1 or not isinstance(batch, int) or batch == num_rows:
        return backend.run(given)
    parts = [
        backend.run({name: array[start : start + batch] for name, array in given.items()})
        for start in range(0, num_rows, batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _compare(found: np.ndarray, golden: np.ndarray, name: str, target: Target) -> float:
    head = f"self-test of target {target.id!r}: output {name!r}"
    if found.shape != golden.shape or found.size == 0:
        raise ValueError(f"{head} has shape {found.shape}, the bundle says {golden.shape}")
    a, b = found.astype(np.float64), golden.astype(np.float64)
    is_finite = np.isfinite(b)
    if not np.array_equal(a[~is_finite], b[~is_finite], equal_nan=True):
        raise ValueError(f"{head} is not infinite or NaN where the bundle says so")
    if not np.isfinite(a[is_finite]).all():
        raise ValueError(f"{head} is NaN or infinite where the bundle has a number; do not use it")
    error = np.abs(a[is_finite] - b[is_finite])
    tolerance = target.tolerance
    limit = tolerance.absolute + tolerance.relative * np.abs(b[is_finite])
    if (error > limit).any():
        worst = int(np.argmax(error - limit))
        raise ValueError(
            f"{head} is off by {error[worst]:.3g}, allowed is {limit[worst]:.3g}; this runtime or "
            "device computes something else, do not use it"
        )
    return float(error.max(initial=0))
