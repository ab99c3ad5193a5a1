"""Damage of a surface: what the renderer knows of one defect, and how the kinds are drawn.

Each kind gives slopes and a reflectance at sub-positions of the pixels it reaches, from which the
scene says how much brighter or darker they are; averaged over a pixel that is a relative change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kits.defect.data.render.scene import Scene

# Brightness of the darkest place in a defect over that of the surface around it.
DARKEST = 0.04
BRIGHTEST = 3.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Damage:
    """One defect as it is on the part, before lens and sensor."""

    kind: str
    top: int
    left: int
    change: np.ndarray  # (h, w) float32, share by which brightness changes
    is_core: np.ndarray  # (h, w) bool: pixels that are mostly defect
    box_px: tuple[float, float, float, float]  # its outline, without any blur
    length_mm: float
    width_mm: float
    segment_px: tuple[Point, Point] | None = None

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the change."""
        height, width = self.change.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


# (x, y) offsets from the centre in pixels -> slope right, slope down, reflectance, share covered.
Profile = Callable[
    [np.ndarray, np.ndarray], tuple[np.ndarray | float, np.ndarray | float, np.ndarray, np.ndarray]
]


def sampled(
    scene: Scene, rows: np.ndarray, columns: np.ndarray, centre: Point, profile: Profile, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The relative change of pixels and how far they are covered.

    Args:
        scene: the bare surface.
        rows: (n,) of the pixels.
        columns: (n,) of the pixels.
        centre: x y of the profile's origin.
        profile: the defect.
        steps: sub-positions of a pixel along each axis.
    Returns:
        (n,) float32 change of brightness as a share, (n,) float32 cover.
    """
    bare = scene.at(rows, columns, (0.0, 0.0))
    change, cover = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32)
    places = (np.arange(steps) + 0.5) / steps - 0.5
    for dy in places:
        for dx in places:
            x = (columns - (centre[0] - dx)).astype(np.float32)
            y = (rows - (centre[1] - dy)).astype(np.float32)
            right, down, albedo, covered = profile(x, y)
            lit = scene.at(rows, columns, (right, down), albedo)
            change += lit / bare - 1
            cover += covered
    return change / steps**2, cover / steps**2


def steps_for(radius_px: float) -> int:
    """Sub-positions along each axis of a pixel that a defect of a (half) width asks for."""
    return 3 if radius_px < 5 else 2 if radius_px < 12 else 1


def bounded(change: np.ndarray) -> np.ndarray:
    """Changes that light allows."""
    return np.clip(change, DARKEST - 1, BRIGHTEST - 1)


def pixels_around(
    shape: tuple[int, int], centre: Point, reach_px: Point
) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Top, left, and (h, 1) rows and (1, w) columns of a window cut at the image's edge."""
    (x, y), (height, width) = centre, shape
    left, right = max(0, math.floor(x - reach_px[0])), min(width, math.ceil(x + reach_px[0]) + 1)
    top, bottom = max(0, math.floor(y - reach_px[1])), min(height, math.ceil(y + reach_px[1]) + 1)
    return top, left, np.arange(top, bottom)[:, None], np.arange(left, right)[None, :]
