"""The native triage behind numpy arrays; dimensions as in `reference`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from kernels.native import load
from kernels.triage.reference import (
    GAIN_ONE,
    MAX_SHIFT,
    Counts,
    cell_grid,
    check_frame,
    check_gain,
    check_levels,
    check_match,
    check_planes,
    check_shifts,
)


def scan(
    frame: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    shifts: np.ndarray,
    *,
    levels: tuple[int, int],
    contrasts: Sequence[int],
    gain: int = GAIN_ONE,
) -> Counts:
    """Count in each cell of a frame what does not look like a good part.

    See `scan_reference`; the frame may be a view whose rows are further apart.

    Raises:
        ValueError: as the reference's.
        RuntimeError: the native library is not built for this machine.
    """
    check_frame(frame)
    check_planes("low", low, frame)
    check_planes("high", high, frame)
    check_shifts("shifts", shifts, (*cell_grid(*frame.shape), 2), MAX_SHIFT)
    check_levels(levels, contrasts)
    check_gain(gain)
    cells = Counts.empty(*frame.shape)
    _declare(load()).deepkits_triage_scan(
        frame.ctypes.data, frame.strides[0], *frame.shape,
        low.ctypes.data, high.ctypes.data, shifts.ctypes.data,
        gain, bytes(levels), bytes(contrasts),
        cells.outside.ctypes.data, cells.slight.ctypes.data, cells.peak.ctypes.data,
        cells.ridge.ctypes.data, cells.excess.ctypes.data, cells.seen.ctypes.data,
    )  # fmt: skip
    return cells


def match(
    frame: np.ndarray,
    reference: np.ndarray,
    patches: np.ndarray,
    base: np.ndarray,
    radius: int,
    gain: int = GAIN_ONE,
) -> tuple[np.ndarray, np.ndarray]:
    """How badly cells of a part fit into a frame, at each shift of a square.

    See `match_reference`.

    Raises:
        ValueError: as the reference's.
        RuntimeError: the native library is not built for this machine.
    """
    check_match(frame, reference, patches, base, radius)
    check_gain(gain)
    found = np.empty((len(patches), 2 * radius + 1, 2 * radius + 1), np.uint32)
    brightness = np.empty(len(patches), np.uint32)
    _declare(load()).deepkits_triage_match(
        frame.ctypes.data, frame.strides[0], *frame.shape, reference.ctypes.data,
        len(patches), patches.ctypes.data, base.ctypes.data, radius, gain,
        found.ctypes.data, brightness.ctypes.data,
    )  # fmt: skip
    return found, brightness


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    scan, match = library.deepkits_triage_scan, library.deepkits_triage_match
    scan.restype = match.restype = None
    levels = ctypes.c_char_p
    scan.argtypes = [pointer, *[number] * 3, *[pointer] * 3, number, levels, levels, *[pointer] * 6]
    match.argtypes = [
        *(pointer, number, number, number, pointer),
        *(number, pointer, pointer, number, number, pointer, pointer),
    ]
    return library
