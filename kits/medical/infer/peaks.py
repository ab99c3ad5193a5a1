"""Peaks of a heat-map. Dimensions: d, h, w of the heat-map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# Peaks that are looked at before those close to a higher one are left out.
MAX_PEAKS = 4096


def find_peaks(heat: np.ndarray, least: float, separation: float) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima, highest first, each with a place between the cells.

    Args:
        heat: (d, h, w) float32, -inf where nothing is known.
        least: lower ones are left out.
        separation: cells; of two peaks that are closer the higher one stays.

    Returns:
        (n, 3) float64 indices, at most half a cell beside the highest one; (n,) float32 heights.
    """
    if not heat.size:
        return np.empty((0, 3)), np.empty(0, np.float32)
    is_peak = (
        np.isfinite(heat)
        & (heat >= least)
        & (heat == ndimage.maximum_filter(heat, 3, mode="nearest"))
    )
    cells = np.argwhere(is_peak)
    heights = heat[is_peak]
    # Equal heights in the order of the cells: the same in every run.
    order = np.argsort(-heights, kind="stable")[:MAX_PEAKS]
    cells, heights = cells[order], heights[order]
    kept: list[int] = []
    for at, cell in enumerate(cells):
        distance = np.linalg.norm(cells[kept] - cell, axis=1)
        if not (distance < separation).any():
            kept.append(at)
    places = [cells[at] + _offset(heat, cells[at]) for at in kept]
    return np.array(places, np.float64).reshape(-1, 3), heights[kept]


def _offset(heat: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Where the parabola through a cell and its neighbours is highest, axis by axis."""
    offset = np.zeros(3)
    for axis in range(3):
        low, high = cell.copy(), cell.copy()
        low[axis] -= 1
        high[axis] += 1
        if low[axis] < 0 or high[axis] >= heat.shape[axis]:
            continue
        before, here, after = (float(heat[tuple(at)]) for at in (low, cell, high))
        bend = before - 2 * here + after
        if np.isfinite(bend) and bend < 0:
            offset[axis] = np.clip((before - after) / (2 * bend), -0.5, 0.5)
    return offset
