"""Sizes of a nodule in millimetres, from its mask, its probability and the scan.

Diameters follow Lung-RADS: long and short axis to one decimal on the axial slice of largest area,
their mean to one decimal. The volume counts voxels inside as one and those at the surface, on both
sides, by their probability; where that cannot be told it is the count of the mask's voxels.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from kits.medical.findings import TEXTURES, Finding
from kits.medical.geometry import Grid, Triple, Volume
from kits.medical.results import calipers
from kits.medical.results.study import Measures, Segment, SolidCore
from kits.medical.results.uncertainty import volume_interval

# Solid parts of subsolid nodules: the threshold at which software agreed best with readers
# (Scholten et al., European Radiology 25, 2015, 765-773).
CORE_HU = -300.0
CORE_SMOOTHING_MM = 0.6  # against noise, before the threshold
# Above this the probability at the surface says something else than how much of a voxel is nodule.
MAX_EDGE_CHANGE = 0.25


def texture_of(finding: Finding) -> str:
    """The likeliest texture of a finding."""
    return TEXTURES[int(np.argmax(finding.texture))]


def measure(finding: Finding, volume: Volume) -> Measures:
    """Measure one finding.

    Args:
        finding: its window lies inside the volume.
        volume: the scan that the finding is of.

    Raises:
        ValueError: the mask is empty, or does not fit its window or the scan.
    """
    _check(finding, volume.grid)
    grid = volume.grid.crop(finding.window)
    texture = texture_of(finding)
    size_mm3, method = _volume(finding, volume.grid)
    points = calipers.surface_points(finding.mask, finding.probability, grid.spacing_mm)
    ends = calipers.longest(calipers.hull(points))
    long_axis, short_axis, index = _axial(finding.mask, finding.probability, grid)
    long_mm, short_mm = round(_length(long_axis), 1), round(_length(short_axis), 1)
    voxels = volume.voxels[finding.window]
    return Measures(
        volume_mm3=size_mm3,
        volume_interval_mm3=volume_interval(size_mm3, texture),
        counted_volume_mm3=float(finding.mask.sum()) * grid.voxel_mm3,
        volume_method=method,
        long_axis_mm=long_mm,
        short_axis_mm=short_mm,
        mean_diameter_mm=_mean(long_mm, short_mm),
        max_diameter_3d_mm=round(float(np.linalg.norm(ends[1] - ends[0])), 1),
        slice_index=finding.window[0].start + index,
        long_axis=long_axis,
        short_axis=short_axis,
        centre_mm=_point(grid, np.argwhere(finding.mask).mean(axis=0)),
        mean_hu=float(voxels[finding.mask].mean()),
        core=_core(finding, voxels, grid) if texture == "part_solid" else None,
    )


def _check(finding: Finding, grid: Grid) -> None:
    shape = tuple(part.stop - part.start for part in finding.window)
    if finding.mask.shape != shape or finding.probability.shape != shape:
        raise ValueError(
            f"mask {finding.mask.shape} and probability {finding.probability.shape} do not fit "
            f"the window {shape}; cut both from the window"
        )
    if any(p.start < 0 or p.stop > n for p, n in zip(finding.window, grid.shape, strict=True)):
        raise ValueError(f"window={finding.window} leaves the scan {grid.shape}; clip it first")
    if not finding.mask.any():
        raise ValueError("mask has no voxel; leave findings without a mask out of the report")


def _volume(finding: Finding, grid: Grid) -> tuple[float, str]:
    """Volume, and how it was found."""
    mask, counted = finding.mask, float(finding.mask.sum())
    inner = ndimage.binary_erosion(mask, border_value=1)
    shell = ndimage.binary_dilation(mask) & ~inner
    weighted = inner.sum() + _shares(finding)[shell].sum()
    is_known = not _is_cut(finding, grid) and abs(weighted / counted - 1) <= MAX_EDGE_CHANGE
    if is_known:
        return float(weighted * grid.voxel_mm3), "edge-weighted"
    return counted * grid.voxel_mm3, "counted"


def _shares(finding: Finding) -> np.ndarray:
    """How much of each voxel is nodule: its probability, shifted so that the mask's level is half.

    A run may draw masks at another level than a half because its probabilities lie too low or too
    high at the surface; the shift, of logits, takes that back.
    """
    level = calipers.level_of(finding.mask, finding.probability) / calipers.CERTAIN
    chance = finding.probability.astype(np.float64) / calipers.CERTAIN
    return chance * (1 - level) / (chance * (1 - level) + (1 - chance) * level)


def _is_cut(finding: Finding, grid: Grid) -> bool:
    """Whether the mask touches the window where the scan goes on: what lies outside is unknown."""
    for axis, (part, size) in enumerate(zip(finding.window, grid.shape, strict=True)):
        faces = np.moveaxis(finding.mask, axis, 0)
        if (faces[0].any() and part.start > 0) or (faces[-1].any() and part.stop < size):
            return True
    return False


def _axial(mask: np.ndarray, probability: np.ndarray, grid: Grid) -> tuple[Segment, Segment, int]:
    """Long and short axis on the slice of largest area, and its number in the window."""
    areas = mask.sum(axis=(1, 2))
    largest = np.flatnonzero(areas == areas.max())
    index = int(largest[len(largest) // 2])
    spacing = grid.spacing_mm[1:]
    axes = calipers.axes(calipers.surface_points(mask[index], probability[index], spacing))
    segments = []
    for line in (axes.long, axes.short):
        ends = [_point(grid, np.array([index, *(end / np.asarray(spacing))])) for end in line]
        segments.append((ends[0], ends[1]))
    return segments[0], segments[1], index


def _core(finding: Finding, voxels: np.ndarray, grid: Grid) -> SolidCore | None:
    """The largest solid piece inside the mask, if there is one."""
    sigma = [CORE_SMOOTHING_MM / step for step in grid.spacing_mm]
    smooth = ndimage.gaussian_filter(voxels.astype(np.float32), sigma, mode="nearest")
    pieces, count = ndimage.label((smooth >= CORE_HU) & finding.mask)
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    piece = pieces == 1 + int(sizes.argmax())
    certain = np.where(piece, np.uint8(calipers.CERTAIN), np.uint8(0))
    long_axis, short_axis, index = _axial(piece, certain, grid)
    long_mm, short_mm = round(_length(long_axis), 1), round(_length(short_axis), 1)
    return SolidCore(
        threshold_hu=CORE_HU,
        volume_mm3=float(piece.sum()) * grid.voxel_mm3,
        long_axis_mm=long_mm,
        short_axis_mm=short_mm,
        mean_diameter_mm=_mean(long_mm, short_mm),
        slice_index=finding.window[0].start + index,
    )


def _mean(long_mm: float, short_mm: float) -> float:
    """Mean of two lengths in tenths, to one decimal, halves up as people round."""
    tenths = round(long_mm * 10) + round(short_mm * 10)
    return math.floor(tenths / 2 + 0.5) / 10


def _point(grid: Grid, index: np.ndarray) -> Triple:
    x, y, z = grid.to_patient(index)
    return float(x), float(y), float(z)


def _length(segment: Segment) -> float:
    return float(np.linalg.norm(np.subtract(segment[1], segment[0])))
