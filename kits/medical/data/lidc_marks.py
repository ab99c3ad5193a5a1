"""What LIDC's readers drew: outlines in slices become masks, marks of one nodule come together.

An outline is the first pixels OUTSIDE a nodule, so the mask is what it encloses without it. An
outline with inclusion=False cuts out what it encloses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes
from scipy.spatial import cKDTree

MAX_SESSIONS = 4  # readers of a LIDC scan
SHRINK = 0.9  # of the distance, while marks of one place are more than the readers


@dataclass(frozen=True)
class Outline:
    """A closed line of pixels in one slice."""

    z_mm: float  # of the slice, as the file says
    sop_uid: str  # of the slice; "" where the source has none
    is_inclusion: bool
    points: np.ndarray  # (n, 2) int: row, column


@dataclass(frozen=True)
class Mark:
    """One reader's outlines and ratings of one nodule of 3 mm or more."""

    reader: int | None  # 0 to 3; None where the source does not tell readers apart
    name: str  # the reader's own for the nodule
    outlines: tuple[Outline, ...]
    ratings: Mapping[str, float]  # "texture" 1 to 5, "malignancy" 1 to 5, ...

    def points_mm(self, pixel_mm: float) -> np.ndarray:
        """(n, 3) of all outlines: z, row, column, in millimetres."""
        return np.concatenate(
            [
                np.column_stack([np.full(len(o.points), o.z_mm), o.points * pixel_mm])
                for o in self.outlines
            ]
        )


def fill(outline: Outline, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: what an outline encloses, itself left out.

    Raises:
        ValueError: a point lies outside the slice.
    """
    points = outline.points
    if points.min() < 0 or (points >= shape).any():
        raise ValueError(
            f"an outline at z={outline.z_mm} mm reaches {points.max(0)} (row, column) in a slice "
            f"of {shape}; the scan is not the one that was read"
        )
    line = trace(points)
    # One pixel of margin, so that the outside is connected also around an outline at the border.
    start = line.min(0) - 1
    canvas = np.zeros(line.max(0) - start + 2, bool)
    canvas[tuple((line - start).T)] = True
    inside = binary_fill_holes(canvas) & ~canvas
    filled = np.zeros(shape, bool)
    rows, columns = np.nonzero(inside)
    filled[rows + start[0], columns + start[1]] = True
    return filled


def trace(points: np.ndarray) -> np.ndarray:
    """The pixels of the closed line through points: neighbours touch at a side or a corner."""
    pieces = []
    for first, second in zip(points, np.roll(points, -1, axis=0), strict=True):
        steps = max(1, int(np.abs(second - first).max()))
        share = np.arange(steps)[:, None] / steps
        pieces.append(np.round(first + share * (second - first)).astype(int))
    return np.concatenate(pieces)


def masks_of(mark: Mark, shape: tuple[int, int]) -> dict[float, np.ndarray]:
    """z_mm -> (H, W) bool: a mark's mask in each of its slices; empty where it is a line."""
    filled: dict[float, np.ndarray] = {}
    for outline in sorted(mark.outlines, key=lambda outline: not outline.is_inclusion):
        inside = fill(outline, shape)
        before = filled.get(outline.z_mm, np.zeros(shape, bool))
        filled[outline.z_mm] = before | inside if outline.is_inclusion else before & ~inside
    return filled


def cluster(marks: Sequence[Mark], *, pixel_mm: float, thickness_mm: float) -> list[list[Mark]]:
    """Marks of one nodule: their outlines come as close as a slice is thick.

    Where more than four marks come together, the distance shrinks by tenths for that group until
    they fall apart, down to a pixel; what still holds together stays one group.

    Args:
        marks: of one scan.
        pixel_mm: in-plane spacing.
        thickness_mm: of the slices.
    Returns:
        groups in the order of their first marks.
    """
    if not marks:
        return []
    trees = [cKDTree(mark.points_mm(pixel_mm)) for mark in marks]
    distance = np.zeros((len(marks), len(marks)))
    for i, tree in enumerate(trees):
        for j in range(i):
            near, _ = tree.query(trees[j].data, distance_upper_bound=thickness_mm + 1e-6)
            distance[i, j] = distance[j, i] = near.min()
    groups = _split(distance, list(range(len(marks))), thickness_mm, pixel_mm)
    return [[marks[index] for index in group] for group in groups]


def _split(
    distance: np.ndarray, chosen: list[int], limit_mm: float, lowest_mm: float
) -> list[list[int]]:
    groups: list[list[int]] = []
    left = list(chosen)
    while left:
        group, grown = [left.pop(0)], 0
        while grown < len(group):
            near = [index for index in left if distance[group[grown], index] <= limit_mm]
            group += near
            left = [index for index in left if index not in near]
            grown += 1
        group.sort()
        if len(group) > MAX_SESSIONS and limit_mm >= lowest_mm:
            groups += _split(distance, group, limit_mm * SHRINK, lowest_mm)
        else:
            groups.append(group)
    return sorted(groups)
