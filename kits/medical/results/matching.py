"""Which nodule of a scan is which nodule of an earlier one.

Breathing and position move the lungs between two scans, so positions are compared inside the box
around both lungs. A pair is only made where no other would do as well: an unsure match would
invent growth, or hide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.medical.geometry import Grid, Window

# Farthest that a nodule may lie from where it was, after the boxes are laid upon each other.
GATE_MM = 15.0
# A second candidate must be this much farther than the first, or nobody knows which it is.
MARGIN_MM = 6.0
# Boxes that differ more were cut differently, or are not of one patient.
MAX_BOX_CHANGE = 0.25
# A nodule outside the prior's box by more than this was not scanned then.
COVER_MM = 5.0


@dataclass(frozen=True)
class Box:
    """The box around both lungs, in the patient."""

    low_mm: tuple[float, float, float]  # (x, y, z)
    high_mm: tuple[float, float, float]

    @property
    def size_mm(self) -> np.ndarray:
        """Its edges."""
        return np.subtract(self.high_mm, self.low_mm)


@dataclass(frozen=True)
class Match:
    """For each nodule now: its place among the earlier ones, or why there is none."""

    places: tuple[int | None, ...]
    reasons: tuple[str, ...]  # matched, new, ambiguous, not_covered, boxes


def lung_box(grid: Grid, window: Window) -> Box:
    """The patient's coordinates of a window's outer faces."""
    ends = np.array([[part.start - 0.5, part.stop - 0.5] for part in window])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    points = grid.to_patient(corners)
    low, high = points.min(axis=0), points.max(axis=0)
    return Box(tuple(map(float, low)), tuple(map(float, high)))  # type: ignore[arg-type]


def match(now: np.ndarray, before: np.ndarray, boxes: tuple[Box, Box]) -> Match:
    """Pair the nodules of two scans.

    Args:
        now: (N, 3) centres in the patient, of this scan.
        before: (M, 3) centres of the earlier scan.
        boxes: around the lungs, of this scan and of the earlier one.

    Returns:
        one entry for each of this scan's nodules: the place of its partner, which no other has,
        or None with the reason.
    """
    now, before = np.asarray(now, float).reshape(-1, 3), np.asarray(before, float).reshape(-1, 3)
    change = boxes[0].size_mm / np.maximum(boxes[1].size_mm, 1e-6)
    if (np.abs(change - 1) > MAX_BOX_CHANGE).any():
        return Match((None,) * len(now), ("boxes",) * len(now))
    # The lungs' box of the prior is laid on this scan's.
    moved = (before - np.asarray(boxes[1].low_mm)) * change + np.asarray(boxes[0].low_mm)
    distance = np.linalg.norm(now[:, None] - moved[None], axis=-1)
    places: list[int | None] = [None] * len(now)
    # A clear pair takes both out of the question, which can make another pair clear.
    while pair := _clear_pair(distance):
        places[pair[0]] = pair[1]
        distance[pair[0]] = distance[:, pair[1]] = np.inf
    reasons = []
    for row, place in enumerate(places):
        if place is not None:
            reasons.append("matched")
        elif (distance[row] <= GATE_MM).any():
            reasons.append("ambiguous")
        else:
            reasons.append("new" if _is_inside(now[row], boxes[0]) else "not_covered")
    return Match(tuple(places), tuple(reasons))


def _clear_pair(distance: np.ndarray) -> tuple[int, int] | None:
    """A nodule of each scan that are near, and for both of which nothing else would do as well."""
    for row, column in np.argwhere(distance <= GATE_MM):
        if _stands_out(distance[row], column) and _stands_out(distance[:, column], row):
            return int(row), int(column)
    return None


def _stands_out(distances: Sequence[float] | np.ndarray, place: int) -> bool:
    """Whether one distance is the least by a margin."""
    others: np.ndarray = np.delete(np.asarray(distances), place)
    return others.size == 0 or bool(others.min() >= distances[place] + MARGIN_MM)


def _is_inside(point: np.ndarray, box: Box) -> bool:
    low, high = np.asarray(box.low_mm) - COVER_MM, np.asarray(box.high_mm) + COVER_MM
    return bool(((low <= point) & (point <= high)).all())


def earlier_only(places: Sequence[int | None], count: int) -> tuple[int, ...]:
    """Places of earlier nodules that no nodule of this scan was paired with."""
    return tuple(sorted(set(range(count)) - {place for place in places if place is not None}))
