"""What is machined, printed or missing on a part: bores, grooves, marks, edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kits.defect.data.render.product import Feature
from kits.defect.data.render.scene import Scene

# Slope of a chamfer and of a groove's walls.
CHAMFER, WALL = 0.28, 0.5
# Dot of a mark.
DOT_MM = 0.5


@dataclass(frozen=True)
class Part:
    """A bare part."""

    brightness: np.ndarray  # (H, W) float32, shares of the full well
    is_material: np.ndarray  # (H, W) bool: neither a hole nor beside the part


def place_features(scene: Scene, shift_px: tuple[float, float] = (0.0, 0.0)) -> Part:
    """The surface of a scene with its product's features.

    Args:
        scene: surface and light.
        shift_px: how far the fixture is off, to the right and down.
    """
    brightness = scene.whole()
    is_material = np.ones(scene.shape, bool)
    mm = scene.optics.mm_per_px
    for feature in scene.product.features:
        x = feature.centre_mm[0] / mm - scene.origin[1] + shift_px[0]
        y = feature.centre_mm[1] / mm - scene.origin[0] + shift_px[1]
        _DRAW[feature.kind](scene, feature, (x, y), brightness, is_material)
    return Part(brightness, is_material)


def _window(
    shape: tuple[int, int], centre: tuple[float, float], reach_px: tuple[float, float]
) -> tuple[slice, slice] | None:
    """Rows and columns around a place; None where nothing of them is inside."""
    (x, y), (height, width) = centre, shape
    left, right = max(0, math.floor(x - reach_px[0])), min(width, math.ceil(x + reach_px[0]) + 1)
    top, bottom = max(0, math.floor(y - reach_px[1])), min(height, math.ceil(y + reach_px[1]) + 1)
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)


def _grid(
    rows: slice, columns: slice, centre: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices of a window, and offsets from a place in pixels."""
    y = np.arange(rows.start, rows.stop)[:, None]
    x = np.arange(columns.start, columns.stop)[None, :]
    return y, x, (x - centre[0]).astype(np.float32), (y - centre[1]).astype(np.float32)


def _covered(distance_px: np.ndarray) -> np.ndarray:
    """Share of a pixel inside of an outline at a signed distance, negative inside."""
    return np.clip(0.5 - distance_px, 0, 1)


def _bore(
    scene: Scene, bore: Feature, centre: tuple[float, float], image: np.ndarray, solid: np.ndarray
) -> None:
    radius, chamfer = (size / scene.optics.mm_per_px for size in bore.size_mm)
    reach = radius + chamfer + 2
    window = _window(scene.shape, centre, (reach, reach))
    if window is None:
        return
    y, x, dx, dy = _grid(*window, centre)
    r = np.hypot(dx, dy)
    ring = _covered(r - radius - chamfer)
    slope = ring * CHAMFER / np.maximum(r, 1)
    lit = scene.at(y, x, (-slope * dx, -slope * dy))
    hole = _covered(r - radius)
    # Deep inside some light comes back from the wall on the far side.
    inside = scene.optics.level * bore.shade * (1 + 0.5 * dx / max(radius, 1))
    image[window] = image[window] * (1 - ring) + lit * (ring - hole) + inside * hole
    solid[window] &= ring <= 0


def _groove(
    scene: Scene, groove: Feature, centre: tuple[float, float], image: np.ndarray, solid: np.ndarray
) -> None:
    length, width = (size / scene.optics.mm_per_px for size in groove.size_mm)
    upright = abs(math.sin(groove.angle)) > 0.5
    reach = (width, length) if upright else (length, width)
    window = _window(scene.shape, centre, (reach[0] + 2, reach[1] + 2))
    if window is None:
        return
    y, x, dx, dy = _grid(*window, centre)
    across, along = (dx, dy) if upright else (dy, dx)
    inside = _covered(np.abs(across) - width) * _covered(np.abs(along) - length)
    wall = np.clip(width * 0.3, 1.0, 4.0)
    slope = inside * WALL * np.sign(-across) * _covered((width - np.abs(across)) - wall)
    lit = scene.at(y, x, (slope, 0.0) if upright else (0.0, slope), 0.9)
    image[window] = image[window] * (1 - inside) + lit * inside
    solid[window] &= inside <= 0


def _mark(
    scene: Scene, mark: Feature, centre: tuple[float, float], image: np.ndarray, solid: np.ndarray
) -> None:
    """A code of square dots, laser-marked or printed."""
    half = tuple(size / scene.optics.mm_per_px for size in mark.size_mm)
    upright = abs(math.sin(mark.angle)) > 0.5
    reach = half[::-1] if upright else half
    window = _window(scene.shape, centre, reach)
    if window is None:
        return
    _, _, dx, dy = _grid(*window, centre)
    dot = DOT_MM / scene.optics.mm_per_px
    rows, columns = math.ceil(2 * reach[1] / dot), math.ceil(2 * reach[0] / dot)
    dots = np.random.default_rng(mark.seed).random((rows + 1, columns + 1)) < 0.5
    row = np.clip(((dy + reach[1]) / dot).astype(int), 0, rows)
    column = np.clip(((dx + reach[0]) / dot).astype(int), 0, columns)
    inked = dots[row, column]
    image[window] *= np.where(inked, np.float32(mark.shade), np.float32(1))
    solid[window] = False


def _edge(
    scene: Scene, edge: Feature, centre: tuple[float, float], image: np.ndarray, solid: np.ndarray
) -> None:
    half_x, half_y = (size / scene.optics.mm_per_px for size in edge.size_mm)
    height, width = scene.shape
    is_inside = (
        centre[0] - half_x < -2 and centre[0] + half_x > width + 2
        and centre[1] - half_y < -2 and centre[1] + half_y > height + 2
    )  # fmt: skip
    if is_inside:
        return
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    on = _covered(np.abs(x - centre[0]) - half_x) * _covered(np.abs(y - centre[1]) - half_y)
    ground = scene.optics.level * edge.shade
    image *= on
    image += ground * (1 - on)
    solid &= on >= 1


_DRAW = {"bore": _bore, "groove": _groove, "mark": _mark, "edge": _edge}
