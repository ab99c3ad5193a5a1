"""Which tiles cover a part of a volume at the least cost: cores that touch, halos that overlap.

All numbers are voxels of one grid; starts and sizes are multiples of the network's own, so that
a tile's pooling meets the same voxels as the whole volume's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.medical.geometry import Shape, Window

# What one more call of a network costs, as voxels.
CALL_VOXELS = 50_000


@dataclass(frozen=True)
class Tile:
    """What is computed, and the part of it that is kept."""

    window: Window  # core and halo
    core: Window  # inside the window


def plan_tiles(wanted: np.ndarray, multiple: int, halo: int, max_voxels: int) -> list[Tile]:
    """Choose a division into equal tiles, and leave out those that nobody wants.

    Args:
        wanted: (d, h, w) bool, one for each block of `multiple` voxels of the volume.
        multiple: of starts and sizes.
        halo: voxels around a core that a tile sees, where the volume has them.
        max_voxels: of one tile; where even the smallest ones are larger, these are taken.

    Returns:
        tiles whose cores cover every wanted block, none of them twice; empty if none is wanted.
    """
    if not wanted.any():
        return []
    box = _bounds(wanted)
    halo = -(-halo // multiple) * multiple
    counts = np.pad(wanted.astype(np.int64).cumsum(0).cumsum(1).cumsum(2), ((1, 0),) * 3)
    best: list[Tile] = []
    least = float("inf")
    choices = [
        [
            _split(part, length, multiple, halo, blocks * multiple)
            for length in _lengths(part.stop - part.start)
        ]
        for part, blocks in zip(box, wanted.shape, strict=True)
    ]
    for axes in itertools.product(*choices):
        is_needed = _held(counts, axes, multiple) > 0
        size = math.prod(parts[0][0].stop - parts[0][0].start for parts in axes)
        cost = float(is_needed.sum()) * (size + CALL_VOXELS)
        if size > max_voxels:
            # Too large: taken only if nothing fits, and then the smallest.
            cost += size * 1e6
        if cost < least:
            least = cost
            tiles = [_tile(parts) for parts in itertools.product(*axes)]
            best = [tile for tile, needed in zip(tiles, is_needed.flat, strict=True) if needed]
    return best


def _bounds(wanted: np.ndarray) -> Window:
    parts = []
    for axis in range(3):
        held = np.flatnonzero(wanted.any(axis=tuple(other for other in range(3) if other != axis)))
        parts.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(parts)  # type: ignore[return-value]


def _lengths(blocks: int) -> list[int]:
    """Of the longest core, for every number of cores; each once, longest first."""
    return sorted({-(-blocks // number) for number in range(1, blocks + 1)}, reverse=True)


def _split(part: slice, length: int, unit: int, halo: int, end: int) -> list[tuple[slice, slice]]:
    """(window, core) along one axis: cores of equal blocks, windows of equal size."""
    cores = [
        slice(at * unit, min(at + length, part.stop) * unit)
        for at in range(part.start, part.stop, length)
    ]
    size = max(min(core.stop + halo, end) - max(core.start - halo, 0) for core in cores)
    # Moved inwards at the ends of the volume, so that all tiles have one shape.
    starts = [min(max(core.start - halo, 0), end - size) for core in cores]
    return [(slice(start, start + size), core) for start, core in zip(starts, cores, strict=True)]


def _tile(parts: Sequence[tuple[slice, slice]]) -> Tile:
    return Tile(tuple(p[0] for p in parts), tuple(p[1] for p in parts))  # type: ignore[arg-type]


def _held(
    counts: np.ndarray, axes: Sequence[Sequence[tuple[slice, slice]]], unit: int
) -> np.ndarray:
    """(a, b, c) wanted blocks in the core of each tile, from their cumulated counts."""
    edges = [
        [parts[0][1].start // unit, *(core.stop // unit for _, core in parts)] for parts in axes
    ]
    found = counts[np.ix_(*edges)]
    for axis in range(3):
        found = np.diff(found, axis=axis)
    return np.asarray(found)


def padded_shape(shape: Shape, multiple: int) -> Shape:
    """A shape with every axis raised to a multiple."""
    depth, height, width = (-(-size // multiple) * multiple for size in shape)
    return depth, height, width
