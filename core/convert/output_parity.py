"""How far one output of a converted model lies from the source's."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.target import Tolerance

DIGITS = 6  # significant, of the numbers in parity.json


@dataclass(frozen=True)
class OutputParity:
    """How far one output lies from the source's at one shape; errors over finite values.

    `violation` is the largest error as a multiple of what the tolerance allows there; `cosine` of
    an output without values, or of zeros, is None.
    """

    name: str
    dtype: str  # of the converted model
    shape: tuple[int, ...]
    max_absolute: float
    mean_absolute: float
    p99_absolute: float
    cosine: float | None
    violation: float
    problem: str  # why it failed; empty when it passed

    @property
    def passed(self) -> bool:
        """Nothing is wrong with it."""
        return not self.problem

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers with 6 digits, None for what is not finite."""
        values = {key: _plain(value) for key, value in asdict(self).items()}
        return values | {"passed": self.passed}


def compare_output(
    name: str, expected: np.ndarray, actual: np.ndarray, tolerance: Tolerance
) -> OutputParity:
    """Errors of one output.

    Args:
        name: of the output.
        expected: what the source computes, any shape and type of number.
        actual: what the converted model computes; has to have the same shape and type.
        tolerance: |actual - expected| <= absolute + relative * |expected|, for floating values.
    """
    problem = ""
    if actual.shape != expected.shape:
        problem = f"has shape {list(actual.shape)}, the source has {list(expected.shape)}"
    elif actual.dtype != expected.dtype:
        problem = f"is {actual.dtype}, the source's is {expected.dtype}"
    if problem:
        nan = math.nan
        return OutputParity(
            name, str(actual.dtype), actual.shape, nan, nan, nan, None, nan, problem
        )
    exact = expected.dtype.kind not in "fc"
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    reference, value = expected.astype(wide).ravel(), actual.astype(wide).ravel()
    finite = np.isfinite(reference) & np.isfinite(value)
    same_elsewhere = np.array_equal(reference[~finite], value[~finite], equal_nan=True)
    reference, value = reference[finite], value[finite]
    error = np.abs(value - reference)
    if exact:  # integers above 2^53 differ by less than float64 can tell
        error = np.where((actual != expected).ravel(), np.maximum(error, 1), 0)
    allowed = 0 * error if exact else tolerance.absolute + tolerance.relative * np.abs(reference)
    ratio = np.divide(error, allowed, out=np.where(error > 0, np.inf, 0.0), where=allowed > 0)
    violation = float(ratio.max(initial=0))
    if expected.size and np.isnan(expected).all():
        problem = "is NaN everywhere in the source: nothing is compared"
    elif actual.size and np.isnan(actual).all():
        problem = "is NaN everywhere"
    elif not same_elsewhere:
        problem = "has NaN or infinity at other places than the source"
    elif violation > 1:
        outside = f"{int((ratio > 1).sum())} of {ratio.size} values"
        worst = "differ" if exact else "differ by more than the tolerance allows"
        problem = f"{outside} {worst}, by {error.max():.3g} at most"
    length = float(np.linalg.norm(reference) * np.linalg.norm(value))
    return OutputParity(
        name=name,
        dtype=str(actual.dtype),
        shape=actual.shape,
        max_absolute=float(error.max(initial=0)),
        mean_absolute=float(error.mean()) if error.size else 0.0,
        p99_absolute=float(np.quantile(error, 0.99)) if error.size else 0.0,
        cosine=float(np.vdot(reference, value).real / length) if length > 0 else None,
        violation=violation,
        problem=problem,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value
