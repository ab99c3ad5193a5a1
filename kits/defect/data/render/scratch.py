"""A scratch: a groove with a burr on both sides, slightly bent, of uneven depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kits.defect.data.render.damage import Damage, Point, bounded, pixels_around, sampled, steps_for
from kits.defect.data.render.scene import Scene

# A burr reaches this far beyond the groove, in half widths, and is this steep beside its walls.
BURR, BURR_SLOPE = 1.7, 0.4
WALL_SLOPE = 0.35
# How much the two walls may differ in brightness, over the mean change.
MOST_UNLIKE = 0.7
# Depth changes over such lengths; ends are shallow and thin.
KNOT_MM = 0.6


@dataclass(frozen=True)
class ScratchShape:
    """What a scratch is like; all its numbers hold on the part."""

    width_mm: float
    length_mm: float
    contrast: float  # mean change of brightness over length times width, as a share
    angle: float  # of its direction, clockwise from the right
    bend: float  # largest distance from the straight line over the length
    wobble_mm: float


def draw_shape(
    widths_mm: Point, lengths_mm: Point, contrasts: Point, rng: np.random.Generator
) -> ScratchShape:
    """A scratch within ranges; small ones are as frequent as large ones by ratio."""
    width, length, contrast = (
        math.exp(rng.uniform(math.log(low), math.log(high)))
        for low, high in (widths_mm, lengths_mm, contrasts)
    )
    length = max(length, width)
    return ScratchShape(
        width, length, contrast, rng.uniform(0, math.pi), rng.normal(0, 0.02),
        abs(rng.normal(0, 0.004)) * length,
    )  # fmt: skip


def draw(scene: Scene, shape: ScratchShape, centre: Point, rng: np.random.Generator) -> Damage:
    """A scratch at a place of a scene."""
    mm = scene.optics.mm_per_px
    half_width, length = shape.width_mm / mm / 2, shape.length_mm / mm
    path = _Path(shape, length, mm, rng)
    corners = np.array(path.outline(half_width)) + centre
    low, high = corners.min(0), corners.max(0)
    middle = (low + high) / 2
    margin = half_width * (BURR - 1) + 1.5
    reach = (high - low) / 2 + margin
    top, left, rows, columns = pixels_around(scene.shape, tuple(middle), tuple(reach))
    change = np.zeros((rows.size, columns.size), np.float32)
    cover = np.zeros_like(change)
    # Only pixels near the path are looked at more closely.
    along, across, _ = path.place(columns - centre[0], rows - centre[1])
    near = np.abs(across) < half_width * BURR + 1.5
    near &= np.abs(along) < length / 2 + 1.5
    y, x = np.nonzero(near)
    normal = np.array([-math.sin(shape.angle), math.cos(shape.angle)], np.float32)

    def profile(
        dx: np.ndarray, dy: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        along, across, depth = path.place(dx, dy)
        d = across / (half_width * np.clip(0.5 + 0.6 * depth, 0.5, 1))
        inside = (np.abs(d) < 1) & (np.abs(along) < length / 2)
        wall = np.where(inside, np.sin(np.pi * np.clip(d, -1, 1)), 0)
        beside = (np.abs(d) >= 1) & (np.abs(d) < BURR) & (np.abs(along) < length / 2)
        burr = np.sin(2 * np.pi * (np.abs(d) - 1) / (BURR - 1)) * np.sign(d) * BURR_SLOPE
        slope = (WALL_SLOPE * depth * (wall + np.where(beside, burr, 0))).astype(np.float32)
        return slope * normal[0], slope * normal[1], np.ones_like(d), inside * depth

    tilted, covered = sampled(scene, y + top, x + left, centre, profile, steps_for(half_width))
    area_px = 2 * half_width * length
    change[y, x] = _with_contrast(tilted, covered, shape.contrast, area_px, rng)
    cover[y, x] = covered
    ends = path.ends()
    return Damage(
        "scratch", top, left, bounded(change), cover > 0.35 * cover.max(initial=1e-6),
        (float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        path.length_px * mm, shape.width_mm,
        tuple((float(x + centre[0]), float(y + centre[1])) for x, y in ends),
    )  # fmt: skip


def _with_contrast(
    tilted: np.ndarray,
    covered: np.ndarray,
    contrast: float,
    area_px: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The walls' light and shadow around a mean change of the whole groove.

    A groove that is torn open has bare, rough metal in it: it is darker or brighter as a whole, and
    most often as its walls are on the mean. All changes add up to `contrast` times its area.
    """
    total = max(float(covered.sum()), 1e-6)
    mean = float(tilted.sum()) / total
    sign = math.copysign(1.0, mean) if rng.random() < 0.8 else -math.copysign(1.0, mean)
    unlike = tilted - mean * covered
    rms = math.sqrt(float((unlike**2 * covered).sum()) / total)
    scale = min(1.0, MOST_UNLIKE * contrast / max(rms, 1e-6))
    return scale * unlike + sign * contrast * area_px / total * covered


class _Path:
    """Where a scratch runs, around its centre; along and across are pixels."""

    def __init__(
        self, shape: ScratchShape, length: float, mm: float, rng: np.random.Generator
    ) -> None:
        self.length = length
        self.direction = (math.cos(shape.angle), math.sin(shape.angle))
        self.sag = shape.bend * length
        self.wobble = shape.wobble_mm / mm
        self.waves, self.phase = rng.uniform(0.5, 3), rng.uniform(0, 2 * math.pi)
        knots = 5 + round(shape.length_mm / KNOT_MM)
        self.knots = np.linspace(-0.5, 0.5, knots)
        depths = rng.uniform(0.5, 1.2, knots) * np.minimum(1, 8 * (0.53 - np.abs(self.knots)))
        self.depths = depths / depths.mean()
        steps = np.array([self._point(t) for t in np.linspace(-0.5, 0.5, 33)])
        self.length_px = float(np.hypot(*np.diff(steps, axis=0).T).sum())
        self._steps = steps

    def place(self, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Along, across and depth of offsets from the centre."""
        cos, sin = self.direction
        along = dx * cos + dy * sin
        share = along / self.length
        across = dy * cos - dx * sin - self._bent(share)
        depth = np.interp(share, self.knots, self.depths)
        return along, across, depth.astype(np.float32)

    def ends(self) -> tuple[Point, Point]:
        """First and last point around the centre."""
        return tuple(self._steps[0]), tuple(self._steps[-1])

    def outline(self, half_width: float) -> list[Point]:
        """Points of both edges."""
        cos, sin = self.direction
        return [
            (x - side * sin * half_width, y + side * cos * half_width)
            for x, y in self._steps
            for side in (-1, 1)
        ]

    def _bent(self, share: np.ndarray | float) -> np.ndarray:
        return self.sag * (1 - 4 * np.square(share)) + self.wobble * np.sin(
            2 * np.pi * self.waves * share + self.phase
        )

    def _point(self, share: float) -> Point:
        cos, sin = self.direction
        along, across = share * self.length, float(self._bent(share))
        return along * cos - across * sin, along * sin + across * cos
