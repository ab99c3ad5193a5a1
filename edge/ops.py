"""Steps before and after a model, written once for evaluation, server and device.

A step is `{"op": name, **parameters}`; `input` names the array it reads (where there is one array
only, it may be left out), `output` the array it writes (default: the same). The rest are parameters
of the function of that name below. Arrays have the batch first.
N batch, H W pixels, C channels, K classes, B boxes.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.boxes import nms
from edge.images import centre_crop, pad, resize, to_channels_first

Arrays = Mapping[str, np.ndarray]
Step = Mapping[str, Any]
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def cast(array: np.ndarray, *, dtype: str) -> np.ndarray:
    """Convert to one of DTYPES; a value that has no place there is refused.

    Raises:
        ValueError: no such type, or an integer cannot hold a value.
    """
    if dtype not in DTYPES:
        raise ValueError(f"cast.dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    wanted = np.dtype(dtype)
    if wanted.kind in "iu" and array.size and array.dtype.kind in "fiu":
        limits = np.iinfo(wanted)
        low, high = array.min(), array.max()
        if not (low >= limits.min and high <= limits.max):
            raise ValueError(f"cast.dtype={dtype!r} cannot hold the values {low} to {high}")
    converted: np.ndarray = array.astype(wanted)
    return converted


def clip(array: np.ndarray, *, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values below `low` become `low`, above `high` become `high`; NaN stays NaN."""
    if low is None and high is None:
        raise ValueError("clip has neither low nor high; give one")
    clipped: np.ndarray = np.clip(array, low, high)
    return clipped.astype(array.dtype)


def normalise(array: np.ndarray, *, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(array - mean) / std along the last axis, in float32.

    Args:
        array: (..., C) any real type.
        mean: C values, or one for all.
        std: likewise, none of them zero.
    """
    if not all(float(value) > 0 for value in std):
        raise ValueError(f"normalise.std={list(std)} has a value that is not positive")
    shape = {len(mean), len(std)} - {1}
    if shape and shape != {array.shape[-1]}:
        raise ValueError(
            f"normalise has {len(mean)} means and {len(std)} deviations for an array whose last "
            f"axis has {array.shape[-1]}; give one each or as many"
        )
    values = array.astype(np.float32)
    return (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def sigmoid(array: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-array)) in the array's floating type; no overflow."""
    shrunk = np.exp(-np.abs(array))
    result: np.ndarray = np.where(array >= 0, 1 / (1 + shrunk), shrunk / (1 + shrunk))
    return result.astype(array.dtype)


def softmax(array: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """Positive values that sum to 1 along an axis."""
    powers = np.exp(array - array.max(axis=axis, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=axis, keepdims=True)
    return result.astype(array.dtype)


def argmax(array: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """Index of the largest value, the first of equals; int64, without the axis."""
    return np.asarray(np.argmax(array, axis=axis), np.int64)


def top_k(array: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of the last axis, falling, the first of equals first.

    Returns:
        (..., k) values; (..., k) int64 indices.
    """
    if not 1 <= k <= array.shape[-1]:
        raise ValueError(f"top_k.k={k} is not within 1..{array.shape[-1]}")
    order = np.argsort(-array.astype(np.float64), axis=-1, kind="stable")[..., :k].astype(np.int64)
    return np.take_along_axis(array, order, axis=-1), order


def interpolate(array: np.ndarray, *, x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """Read a table of rising x off at each value: linear between, its ends beyond.

    Returns:
        the array's shape; float64, so that a calibration table loses nothing.
    """
    points = np.asarray(x, np.float64)
    if len(x) != len(y) or len(x) < 1:
        raise ValueError(f"interpolate has {len(x)} x and {len(y)} y; give as many of each")
    if not np.all(np.diff(points) >= 0):
        raise ValueError("interpolate.x falls somewhere; sort the table by x")
    return np.asarray(np.interp(array, points, np.asarray(y, np.float64)))


def threshold(array: np.ndarray, *, at: float) -> np.ndarray:
    """True where array >= at."""
    return array >= at


def select(array: np.ndarray, *, index: int, axis: int = -1) -> np.ndarray:
    """One place of an axis, which goes."""
    if not -array.shape[axis] <= index < array.shape[axis]:
        raise ValueError(f"select.index={index} is not within {array.shape[axis]} places")
    return np.asarray(np.take(array, index, axis=axis))


def rename(array: np.ndarray) -> np.ndarray:
    """The same array under the name of `output`."""
    return array


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(argmax, cast, centre_crop, clip, interpolate, nms, normalise, pad, rename, resize),
        *(select, sigmoid, softmax, threshold, to_channels_first, top_k),
    )
}
# Ops that read or write several arrays: parameter `input` or `output` is then a list of so many.
NUM_INPUTS = {"nms": 2}
NUM_OUTPUTS = {"nms": 3, "top_k": 2}
MOVES = ("rename",)  # the array that was read goes


@dataclass(frozen=True)
class CheckedStep:
    """A step whose op and parameters exist."""

    op: str
    inputs: tuple[str, ...]  # empty: the only array there is
    outputs: tuple[str, ...]  # empty: the same as the inputs
    parameters: Mapping[str, Any]


def check_steps(steps: Sequence[Step]) -> tuple[CheckedStep, ...]:
    """Refuse what could only fail later, at a sample.

    Raises:
        ValueError: an unknown op, an unknown or missing parameter, or one of a wrong type.
    """
    if not isinstance(steps, list | tuple):
        raise ValueError(f"steps={type(steps).__name__} is not a list of steps")
    return tuple(_check_step(step, f"step {at}") for at, step in enumerate(steps))


def run_steps(
    steps: Sequence[Step] | Sequence[CheckedStep], arrays: Arrays
) -> dict[str, np.ndarray]:
    """Apply steps in order; arrays that no step names pass through.

    Args:
        steps: as read from JSON, or checked before.
        arrays: name -> array, unchanged.
    Raises:
        ValueError: a step is not one, an array it names is not there, or it refuses the array.
    """
    found = dict(arrays)
    for step in steps:
        checked = step if isinstance(step, CheckedStep) else _check_step(step, "step")
        names = checked.inputs or tuple(found)
        if len(names) != NUM_INPUTS.get(checked.op, 1):
            raise ValueError(f"step {checked.op}: no input is named among {sorted(found)}; name it")
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(
                f"step {checked.op}: input={missing[0]!r} is not one of {', '.join(sorted(found))}"
            )
        results = FUNCTIONS[checked.op](*(found[name] for name in names), **checked.parameters)
        results = results if isinstance(results, tuple) else (results,)
        if checked.op in MOVES:
            del found[names[0]]
        found.update(zip(checked.outputs or names, results, strict=True))
    return found


def _check_step(step: Step, where: str) -> CheckedStep:
    op = step.get("op") if isinstance(step, Mapping) else None
    if not isinstance(op, str) or op not in FUNCTIONS:
        raise ValueError(f"{where}: op={op!r} is not one of {', '.join(sorted(FUNCTIONS))}")
    parameters = {k: v for k, v in step.items() if k not in ("op", "input", "output")}
    signature = inspect.signature(FUNCTIONS[op])
    legal = {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    hints = typing.get_type_hints(FUNCTIONS[op])
    for name, value in parameters.items():
        if name not in legal:
            raise ValueError(
                f"{where}: {op} has no parameter {name!r}; it has "
                f"{', '.join(legal) or 'none'} beside input and output"
            )
        if not _fits(value, hints[name]):
            raise ValueError(f"{where}: {op}.{name}={value!r} is not {_told(hints[name])}")
    for name, parameter in legal.items():
        if name not in parameters and parameter.default is parameter.empty:
            raise ValueError(f"{where}: {op} lacks its parameter {name!r}")
    inputs = _names(step, "input", NUM_INPUTS.get(op, 1), where)
    outputs = _names(step, "output", NUM_OUTPUTS.get(op, 1), where)
    if not outputs and (NUM_OUTPUTS.get(op, 1) != NUM_INPUTS.get(op, 1) or op in MOVES):
        raise ValueError(f"{where}: {op} lacks its output; name {NUM_OUTPUTS.get(op, 1)}")
    return CheckedStep(op, inputs, outputs, parameters)


def _names(step: Step, key: str, number: int, where: str) -> tuple[str, ...]:
    value = step.get(key)
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if len(names) != number or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{where}: {step['op']}.{key}={value!r} is not {number} names")
    return names


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is not None:  # Sequence[...]
        (inner,) = typing.get_args(hint)
        return isinstance(value, list | tuple) and all(_fits(each, inner) for each in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _told(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("collections.abc.", "")
