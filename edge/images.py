"""Steps on images: (N, H, W, C), as cameras and decoders give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def resize(array: np.ndarray, *, height_px: int, width_px: int) -> np.ndarray:
    """Bilinear, pixel centres aligned (half a pixel in), edges clamped, no antialiasing.

    Args:
        array: (N, H, W, C); integers are rounded half to even at the end.
        height_px: of the result.
        width_px: likewise.
    Returns:
        (N, height_px, width_px, C) of the same type.
    Source: torch's interpolate(align_corners=False), compared in tests/edge/test_ops.py.
    """
    _check(array, "resize")
    if height_px < 1 or width_px < 1:
        raise ValueError(f"resize to {height_px} x {width_px} is not an image; give 1 or more")
    values = array.astype(np.float32)
    for axis, size in ((1, height_px), (2, width_px)):
        first, second, weight = _taps(array.shape[axis], size)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        lower, upper = values.take(first, axis), values.take(second, axis)
        values = lower + (upper - lower) * weight.reshape(shape)
    if array.dtype.kind in "iu":
        values = np.rint(values)
    result: np.ndarray = values.astype(array.dtype)
    return result


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position = np.maximum((np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5, 0)
    first = np.minimum(position.astype(np.int64), old - 1)
    weight = np.minimum(position - first, 1)
    return first, np.minimum(first + 1, old - 1), weight.astype(np.float32)


def centre_crop(array: np.ndarray, *, height_px: int, width_px: int) -> np.ndarray:
    """The middle of an image; where it cannot be halved, the place torchvision takes.

    Args:
        array: (N, H, W, C).
        height_px: of the result, at most H.
        width_px: likewise, at most W.
    """
    _check(array, "centre_crop")
    height, width = array.shape[1:3]
    if not (1 <= height_px <= height and 1 <= width_px <= width):
        raise ValueError(
            f"centre_crop to {height_px} x {width_px} px of an image of {height} x {width} px; "
            "resize or pad it first"
        )
    top, left = round((height - height_px) / 2), round((width - width_px) / 2)
    return array[:, top : top + height_px, left : left + width_px]


def pad(array: np.ndarray, *, amounts_px: Sequence[int], value: float = 0) -> np.ndarray:
    """Add a border.

    Args:
        array: (N, H, W, C).
        amounts_px: top, bottom, left, right; none negative.
        value: of the border.
    """
    _check(array, "pad")
    if len(amounts_px) != 4 or min(amounts_px) < 0:
        raise ValueError(
            f"pad.amounts_px={list(amounts_px)} is not top, bottom, left, right, none negative"
        )
    top, bottom, left, right = amounts_px
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(array, widths, constant_values=np.asarray(value).astype(array.dtype))


def to_channels_first(array: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> (N, C, H, W), contiguous."""
    _check(array, "to_channels_first")
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _check(array: np.ndarray, name: str) -> None:
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(f"{name}: shape={array.shape} is not (N, H, W, C) with something in it")
