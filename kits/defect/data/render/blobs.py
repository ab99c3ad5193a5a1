"""Defects with an outline: dents, pits, stains and inclusions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from kits.defect.data.render.damage import (
    Damage,
    Point,
    Profile,
    bounded,
    pixels_around,
    sampled,
    steps_for,
)
from kits.defect.data.render.scene import Scene

Drawer = Callable[[Scene, Point, np.random.Generator], Damage | None]


def dent(scene: Scene, centre: Point, rng: np.random.Generator) -> Damage | None:
    """A shallow hollow whose sides catch the light differently."""
    radius_mm, ratio = _log_uniform(rng, 0.6, 2.5), rng.uniform(0.6, 1)
    outline = _Outline(radius_mm / scene.optics.mm_per_px, ratio, rng.uniform(0, math.pi), 0, rng)
    steep = rng.uniform(0.03, 0.12)
    cos, sin = outline.direction

    def profile(dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        along, across, rho = outline.place(dx, dy)
        # A Gaussian hollow, steepest at half the radius.
        hollow = steep * 2 * math.exp(0.5) * np.exp(-2 * rho**2)
        a, b = hollow * along / outline.along, hollow * across / outline.across
        return a * cos - b * sin, a * sin + b * cos, np.ones_like(rho), rho < 1

    return _damage("dent", scene, centre, outline, profile, is_sharp=False, reach=1.5,
                   contrast=_log_uniform(rng, 0.12, 0.45))  # fmt: skip


def pit(scene: Scene, centre: Point, rng: np.random.Generator) -> Damage | None:
    """A small hole, dark inside, with a lip that shines on one side."""
    radius_mm = _log_uniform(rng, 0.12, 0.45)
    outline = _Outline(
        radius_mm / scene.optics.mm_per_px, rng.uniform(0.7, 1), rng.uniform(0, math.pi), 0.12, rng
    )
    dark = rng.uniform(0.15, 0.55)

    def profile(dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        _, _, rho = outline.place(dx, dy)
        inside = _inside(rho, 0.15)
        lip = 0.25 * np.exp(-0.5 * ((rho - 1.15) / 0.2) ** 2) / np.maximum(np.hypot(dx, dy), 0.5)
        return lip * dx, lip * dy, 1 - (1 - dark) * inside, inside

    return _damage("pit", scene, centre, outline, profile, is_sharp=True, reach=1.8)


def stain(scene: Scene, centre: Point, rng: np.random.Generator) -> Damage | None:
    """A dried drop: a faint patch with a darker rim."""
    radius_mm = _log_uniform(rng, 1.2, 5.0)
    outline = _Outline(
        radius_mm / scene.optics.mm_per_px, rng.uniform(0.5, 1), rng.uniform(0, math.pi), 0.15, rng
    )
    rim, soft = rng.uniform(0.3, 1.5), rng.uniform(0.08, 0.3)
    waves = rng.normal(0, 2.2, (3, 2)), rng.uniform(0, 2 * math.pi, 3)
    sign = -1 if rng.random() < 0.8 else 1

    def profile(dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        along, across, rho = outline.place(dx, dy)
        inside = _inside(rho, soft)
        u, v = along / outline.along, across / outline.across
        uneven = sum(
            np.sin(wave[0] * u + wave[1] * v + phase)
            for wave, phase in zip(*waves, strict=True)
        )  # fmt: skip
        faint = inside * (1 + 0.2 * uneven) + rim * np.exp(-0.5 * ((rho - 0.93) / 0.07) ** 2)
        return 0.0, 0.0, np.maximum(1 + sign * 0.1 * faint, 0.05), inside

    return _damage("stain", scene, centre, outline, profile, is_sharp=False, reach=1.35,
                   contrast=_log_uniform(rng, 0.08, 0.3))  # fmt: skip


def inclusion(scene: Scene, centre: Point, rng: np.random.Generator) -> Damage | None:
    """Foreign matter rolled in: dark grains in a row along the brush, or the rolling direction."""
    surface = scene.product.surface
    angle = rng.uniform(0, math.pi)
    if surface.kind == "brushed":
        angle = math.atan2(surface.axis[1], surface.axis[0]) + math.pi / 2
    angle += rng.normal(0, 0.06)
    length_mm, ratio = _log_uniform(rng, 0.3, 2.2), rng.uniform(0.12, 0.4)
    outline = _Outline(length_mm / scene.optics.mm_per_px, ratio, angle, 0.0, rng)
    count = int(rng.integers(1, 5))
    grains = [
        (rng.uniform(-0.6, 0.6) if count > 1 else 0.0, rng.uniform(-0.4, 0.4) if count > 1 else 0.0)
        + ((rng.uniform(0.25, 0.4), rng.uniform(0.4, 0.6)) if count > 1 else (1.0, 1.0))
        for _ in range(count)
    ]
    ragged = rng.uniform(0, 2 * math.pi, 4)
    dark = rng.uniform(0.3, 0.7)

    def profile(dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
        along, across, _ = outline.place(dx, dy)
        u, v = along / outline.along, across / outline.across
        rough = 1 + 0.12 * np.sin(9 * u + ragged[0]) + 0.12 * np.sin(5 * v + ragged[1])
        rough = rough + 0.08 * np.sin(23 * u + ragged[2])
        rho = np.min(
            [np.hypot((u - gu) / su, (v - gv) / sv) for gu, gv, su, sv in grains], axis=0
        )  # fmt: skip
        inside = _inside(rho * rough, 0.12)
        return 0.0, 0.0, 1 - (1 - dark) * inside, inside

    return _damage("inclusion", scene, centre, outline, profile, is_sharp=True, reach=1.25)


DRAWERS: dict[str, Drawer] = {"dent": dent, "pit": pit, "stain": stain, "inclusion": inclusion}


class _Outline:
    """An ellipse with waves; lengths are pixels."""

    def __init__(
        self, radius: float, ratio: float, angle: float, waves: float, rng: np.random.Generator
    ) -> None:
        self.along, self.across = radius, radius * ratio
        self.direction = (math.cos(angle), math.sin(angle))
        # The finer, the flatter.
        self.waves = np.clip(rng.normal(0, 1, 3), -1.5, 1.5) * waves / np.array([1, 1.5, 2])
        self.phases = rng.uniform(0, 2 * math.pi, 3)

    def fits(self, centre: Point, shape: tuple[int, int]) -> bool:
        """Whether most of it lies inside of an image: else it is not worth drawing."""
        (cos, sin), (x, y) = self.direction, centre
        half_x = 0.7 * math.hypot(self.along * cos, self.across * sin)
        half_y = 0.7 * math.hypot(self.along * sin, self.across * cos)
        return half_x < x < shape[1] - half_x and half_y < y < shape[0] - half_y

    def place(self, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Along, across, and the distance over that of the outline."""
        cos, sin = self.direction
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        u, v = along / self.along, across / self.across
        rho = np.hypot(u, v)
        if self.waves.any():
            angle = np.arctan2(v, u)
            reach = 1 + sum(
                size * np.sin((number + 2) * angle + phase)
                for number, (size, phase) in enumerate(zip(self.waves, self.phases, strict=True))
            )
            rho = rho / np.maximum(reach, 0.4)
        return along, across, rho


def _damage(
    kind: str,
    scene: Scene,
    centre: Point,
    outline: _Outline,
    profile: Profile,
    *,
    is_sharp: bool,
    reach: float,
    contrast: float | None = None,
) -> Damage | None:
    """The defect, or None where it does not fit the image or no pixel sees any of it."""
    if not outline.fits(centre, scene.shape):
        return None
    size = outline.along * reach * (1 + np.abs(outline.waves).sum()) + 2
    top, left, rows, columns = pixels_around(scene.shape, centre, (size, size))
    y, x = (grid.ravel() for grid in np.broadcast_arrays(rows, columns))
    steps = steps_for(outline.across) if is_sharp else 1
    change, cover = sampled(scene, y, x, centre, profile, steps)
    most = float(cover.max(initial=0.0))
    if not most:
        return None
    if contrast is not None:
        # The surface's texture makes single pixels differ more.
        strong = float(np.percentile(np.abs(change[cover > 0.5 * most]), 80))
        change = change * min(contrast / max(strong, 1e-6), 20.0)
    shape = (rows.size, columns.size)
    change, cover = change.reshape(shape), cover.reshape(shape)
    ys, xs = np.nonzero(cover > 0.02 * most)
    box = (left + xs.min(), top + ys.min(), left + xs.max() + 1, top + ys.max() + 1)
    # It is as large as its pixels that are half covered.
    is_core = cover > 0.5 * most
    ys, xs = np.nonzero(is_core)
    cos, sin = outline.direction
    length, width = _extent(xs * cos + ys * sin), _extent(ys * cos - xs * sin)
    mm = scene.optics.mm_per_px
    return Damage(
        kind, top, left, bounded(change), is_core, tuple(float(side) for side in box),
        max(length, width) * mm, min(length, width) * mm,
    )  # fmt: skip


def _extent(places: np.ndarray) -> float:
    return float(places.max() - places.min()) + 1.0


def _inside(rho: np.ndarray, soft: float) -> np.ndarray:
    """1 inside, 0 outside, over an edge of a softness."""
    return 1 / (1 + np.exp(np.clip((rho - 1) / (0.25 * soft), -30, 30)))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
