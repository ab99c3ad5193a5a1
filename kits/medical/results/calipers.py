"""Distances on the surface of a mask, in millimetres whatever the grid.

Dimensions: d, h, w of a window around one mask. The surface lies between the centres of a voxel
inside and its neighbour outside: half-way, or where the probability between them crosses the level
that made the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

CERTAIN = 255  # of a probability in one byte
MAX_PAIRS = 4_000_000  # distances held at once


@dataclass(frozen=True)
class Axes:
    """Longest line across a shape and the longest one at a right angle to it."""

    long: np.ndarray  # (2, 2) both ends
    short: np.ndarray  # (2, 2)

    @property
    def long_length(self) -> float:
        """Length of the long axis."""
        return float(np.linalg.norm(self.long[1] - self.long[0]))

    @property
    def short_length(self) -> float:
        """Length of the short axis."""
        return float(np.linalg.norm(self.short[1] - self.short[0]))


def level_of(mask: np.ndarray, probability: np.ndarray) -> float:
    """The level between 0 and 255 that parts a mask from what surrounds it.

    Args:
        mask: bool, any shape.
        probability: uint8, same shape.

    Returns:
        the middle of the scale, unless the mask was drawn at another level: then half-way between
        the least inside and the most outside.
    """
    inside = float(probability[mask].min())
    outside = float(probability[~mask].max()) if not mask.all() else 0.0
    is_other_level = outside < inside and not outside <= CERTAIN / 2 <= inside
    return (inside + outside) / 2 if is_other_level else CERTAIN / 2


def surface_points(
    mask: np.ndarray, probability: np.ndarray, spacing_mm: tuple[float, ...]
) -> np.ndarray:
    """Where lines between neighbouring voxel centres cross the surface.

    Args:
        mask: bool, one axis for each spacing; at least one voxel.
        probability: uint8, same shape.
        spacing_mm: between centres along each axis.

    Returns:
        (N, axes) float64 in millimetres from the centre of the first voxel.
    """
    level = level_of(mask, probability)
    padded = np.pad(mask, 1)
    values = np.pad(probability, 1).astype(np.float64)
    spacing = np.asarray(spacing_mm, np.float64)
    points = []
    for axis in range(mask.ndim):
        first = tuple(slice(None, -1) if k == axis else slice(None) for k in range(mask.ndim))
        second = tuple(slice(1, None) if k == axis else slice(None) for k in range(mask.ndim))
        crossing = padded[first] != padded[second]
        places = np.argwhere(crossing).astype(np.float64)
        left, right = values[first][crossing], values[second][crossing]
        goes_through = (left - level) * (right - level) < 0
        step = np.where(goes_through, right - left, 1.0)
        places[:, axis] += np.where(goes_through, (level - left) / step, 0.5)
        points.append((places - 1) * spacing)
    return np.concatenate(points)


def hull(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull, in order around it where the points lie in a plane."""
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:  # all on one line, or fewer points than a body has corners
        return np.unique(points, axis=0)


def longest(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two of some points that are farthest apart."""
    rows = max(1, MAX_PAIRS // max(1, len(points)))
    best, pair = -1.0, (points[0], points[0])
    for start in range(0, len(points), rows):
        part = points[start : start + rows]
        squares = ((part[:, None] - points[None]) ** 2).sum(axis=-1)
        place = int(squares.argmax())
        if squares.flat[place] > best:
            best = float(squares.flat[place])
            pair = (part[place // len(points)], points[place % len(points)])
    return pair


def axes(points: np.ndarray) -> Axes:
    """Long and short axis of the convex hull of points in a plane.

    Args:
        points: (N, 2), N at least 1.

    Returns:
        the longest line between two points of the hull, and the longest line inside the hull at a
        right angle to it, wherever it crosses.
    """
    corners = hull(points)
    start, end = longest(corners)
    length = float(np.linalg.norm(end - start))
    if length == 0 or len(corners) < 3:
        return Axes(np.stack([start, end]), np.stack([start, start]))
    along = (end - start) / length
    across = np.array([-along[1], along[0]])
    # The hull's width across is linear between corners, so it is greatest at one of them.
    places, heights = (corners - start) @ along, (corners - start) @ across
    next_places, next_heights = np.roll(places, -1), np.roll(heights, -1)
    best, line = -1.0, np.stack([start, start])
    for place in places:
        low, high = _crossings(place, places, heights, next_places, next_heights)
        if high - low > best:
            best = high - low
            line = np.stack([start + place * along + value * across for value in (low, high)])
    return Axes(np.stack([start, end]), line)


def _crossings(
    place: float,
    places: np.ndarray,
    heights: np.ndarray,
    next_places: np.ndarray,
    next_heights: np.ndarray,
) -> tuple[float, float]:
    """Lowest and highest point at which a line across meets the sides of the hull."""
    span = next_places - places
    meets = (np.minimum(places, next_places) <= place) & (place <= np.maximum(places, next_places))
    upright = span == 0
    share = np.where(upright, 0.0, (place - places) / np.where(upright, 1.0, span))
    values = (heights + share * (next_heights - heights))[meets]
    both = np.concatenate([values, next_heights[meets & upright]])
    return float(both.min()), float(both.max())
