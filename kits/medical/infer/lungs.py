"""Where the lungs are, from a view of about 3 mm: what is worth a look, and how much air it holds.

Dimensions: D slices, H rows, W columns of the scan; d, h, w of the small grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kernels.blockmean import block_mean
from kits.medical.geometry import Shape, Volume, Window

GRID_MM = 3.0
AIR_HU = -450.0  # between aerated lung and soft tissue, fat included
PURE_AIR_HU = -960.0  # bowel, stomach, the gap between arm and chest: darker than any lung
SMALLEST_ML = 20.0
SMALLEST_SHARE = 0.02  # of the largest part; less is bowel or a rest of the windpipe
WALL_HU = -500.0  # mean two steps outside a lung: chest wall; of a hollow table it is air
SMALLEST_SLICE_MM2 = 400.0  # the windpipe above the lungs is smaller
CLOSED_MM, GROWN_MM = 20.0, 6.0  # nodules at the chest wall lie outside the air
CUBES_SHARE = 0.41
PLAUSIBLE_ML = (300.0, 15_000.0)


class NoLungs(ValueError):
    """The scan shows none."""

    code = "no-lungs"


@dataclass(frozen=True)
class Lungs:
    """What is searched."""

    window: Window  # of the scan's voxels
    region: np.ndarray  # (d, h, w) bool: where a nodule's centre may lie; all of the scan
    factors: Shape  # voxels of the scan in one of the region
    volume_ml: float  # of what holds air
    note: str = ""  # why the whole scan is searched, if it is

    def holds(self, indices: np.ndarray) -> np.ndarray:
        """(n,) bool: whether (n, 3) voxel indices of the scan lie in the region."""
        small = np.round(indices).astype(np.int64) // np.asarray(self.factors)
        small = np.clip(small, 0, np.asarray(self.region.shape) - 1)
        return np.asarray(self.region[tuple(small.T)])

    def blocks(self, block: Shape, shape: Shape) -> np.ndarray:
        """(shape) bool: which blocks of `block` voxels of the scan touch the region."""
        held = self.region
        for axis in range(3):
            # A block and a cell of the region may overlap by any part of both.
            starts = np.arange(shape[axis]) * block[axis] // self.factors[axis]
            ends = (np.arange(shape[axis]) * block[axis] + block[axis] - 1) // self.factors[axis]
            size = held.shape[axis]
            count = np.pad(held.cumsum(axis), [(int(axis == a), 0) for a in range(3)])
            low, high = np.clip(starts, 0, size), np.clip(ends + 1, 0, size)
            held = (count.take(high, axis) - count.take(low, axis)) > 0
        return np.asarray(held)


def find_lungs(volume: Volume, *, threads: int = 1) -> Lungs:
    """Find both lungs, or the one that holds air.

    Enclosed air that is neither pure air (bowel, the windpipe) nor without a wall (a hollow
    table). Where the result cannot be lungs the whole scan is searched, and the note says why.

    Raises:
        NoLungs: nothing in the scan could be one; its `code` is "no-lungs".
    """
    depth, height, width = (max(1, round(GRID_MM / step)) for step in volume.grid.spacing_mm)
    factors = (depth, height, width)
    small = block_mean(volume.voxels, factors, threads=threads)
    cell_mm = np.asarray(volume.grid.spacing_mm) * factors
    cell_ml = float(np.prod(cell_mm)) / 1000
    air = small < AIR_HU
    labels, number = ndimage.label(air)
    outside = np.unique(np.concatenate([side.ravel() for side in _sides(labels)]))
    sizes_ml = np.bincount(labels.ravel(), minlength=number + 1) * cell_ml
    windows = ndimage.find_objects(labels)
    kept = [
        label
        for label in range(1, number + 1)
        if label not in outside
        and sizes_ml[label] >= SMALLEST_ML
        and _is_lung(small, labels, label, windows[label - 1])
    ]
    if not kept:
        return _whole(volume, factors, small, labels, outside, cell_ml)
    largest = max(sizes_ml[label] for label in kept)
    kept = [label for label in kept if sizes_ml[label] >= SMALLEST_SHARE * largest]
    lungs = np.isin(labels, kept)
    area_mm2 = lungs.sum((1, 2)) * cell_mm[1] * cell_mm[2]
    lungs[area_mm2 < SMALLEST_SLICE_MM2] = False
    volume_ml = float(lungs.sum()) * cell_ml
    if not PLAUSIBLE_ML[0] <= volume_ml <= PLAUSIBLE_ML[1]:
        note = f"lungs of {volume_ml:.0f} ml are not plausible: the whole scan was searched"
        return Lungs(_all(volume), np.ones(small.shape, bool), factors, volume_ml, note)
    region = _region(lungs, float(cell_mm.mean()))
    return Lungs(_window(region, factors, volume.grid.shape), region, factors, volume_ml)


def _sides(labels: np.ndarray) -> list[np.ndarray]:
    """The four sides of the image in every slice; lungs may be cut by the first and last slice."""
    return [labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]


def _is_lung(small: np.ndarray, labels: np.ndarray, label: int, window: Window) -> bool:
    """Whether air of this density, with this around it, can be a lung."""
    wider = tuple(slice(max(part.start - 3, 0), part.stop + 3) for part in window)
    part, values = labels[wider] == label, small[wider]
    if float(np.median(values[part])) < PURE_AIR_HU:
        return False
    near = ndimage.binary_dilation(part, iterations=2)
    shell = near & ~ndimage.binary_dilation(part)
    return bool(shell.any()) and float(values[shell].mean()) > WALL_HU


def _whole(
    volume: Volume,
    factors: Shape,
    small: np.ndarray,
    labels: np.ndarray,
    outside: np.ndarray,
    cell_ml: float,
) -> Lungs:
    """The whole scan, if lungs may be among the air that reaches the image's sides."""
    open_air = np.isin(labels, outside[outside > 0])
    like_lung = open_air & (small > PURE_AIR_HU)
    # The skin's cells are as dense; opened, they are gone.
    like_lung = ndimage.binary_opening(like_lung, iterations=2)
    volume_ml = float(like_lung.sum()) * cell_ml
    if volume_ml < PLAUSIBLE_ML[0]:
        raise NoLungs(
            f"lungs={volume_ml:.0f} ml of air at the density of lungs were found, a chest holds "
            f"{PLAUSIBLE_ML[0]:.0f} ml or more; give a CT of the chest in Hounsfield units"
        )
    note = "the lungs reach the side of the image: the whole scan was searched"
    return Lungs(_all(volume), np.ones(small.shape, bool), factors, volume_ml, note)


def _region(lungs: np.ndarray, cell_mm: float) -> np.ndarray:
    """Lungs with their vessels, nodules at the wall, and a margin."""
    closed, grown = round(CLOSED_MM / cell_mm), round(GROWN_MM / cell_mm)
    pad = closed + grown + 1
    wide = _grow(np.pad(lungs, pad), closed + grown)
    # Shrinking is growing of the rest.
    region = ~_grow(~wide, closed)
    depth, height, width = lungs.shape
    inner = region[pad : pad + depth, pad : pad + height, pad : pad + width]
    return np.asarray(ndimage.binary_fill_holes(inner))


def _grow(mask: np.ndarray, cells: int) -> np.ndarray:
    """Dilated by about a ball: cubes and octahedra have its size along axes and diagonals."""
    cubes = round(cells * CUBES_SHARE)
    for number, reach in ((cubes, 3), (cells - cubes, 1)):
        if number:
            shape = ndimage.generate_binary_structure(3, reach)
            mask = ndimage.binary_dilation(mask, shape, iterations=number)
    return mask


def _window(region: np.ndarray, factors: Shape, shape: Shape) -> Window:
    parts = []
    box = ndimage.find_objects(region.astype(np.int8))[0]
    for part, factor, size in zip(box, factors, shape, strict=True):
        parts.append(slice(part.start * factor, min(part.stop * factor, size)))
    return tuple(parts)  # type: ignore[return-value]


def _all(volume: Volume) -> Window:
    depth, height, width = volume.grid.shape
    return slice(0, depth), slice(0, height), slice(0, width)
