"""Peaks of a heat-map. Dimensions: d, h, w of the heat-map."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import KDTree

# Peaks that are looked at before those close to a higher one are left out.
MAX_PEAKS = 4096
NEIGHBOURS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def find_peaks(heat: np.ndarray, least: float, separation: float) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima, highest first, each with a place between the cells.

    Args:
        heat: (d, h, w) float32, -inf where nothing is known.
        least: lower ones are left out.
        separation: cells; of two peaks that are closer the higher one stays.

    Returns:
        (n, 3) float64 indices, at most half a cell beside the highest one; (n,) float32 heights.
    """
    # Few cells are high: their neighbours alone are looked at, not those of every cell.
    cells = np.argwhere((heat >= least) & np.isfinite(heat))
    around = np.pad(heat, 1, constant_values=-np.inf)
    for step in NEIGHBOURS:
        cells = cells[_beside(around, cells, step) <= _beside(around, cells, (0, 0, 0))]
    heights = _beside(around, cells, (0, 0, 0))
    # Equal heights in the order of the cells: the same in every run.
    order = np.argsort(-heights, kind="stable")[:MAX_PEAKS]
    cells, heights = cells[order], heights[order]
    is_kept = np.ones(len(cells), bool)
    if len(cells):
        # Nearer than the separation, and not as near.
        pairs = KDTree(cells).query_pairs(np.nextafter(separation, 0))
        for higher, lower in sorted(pairs):
            is_kept[lower] &= not is_kept[higher]
    cells, heights = cells[is_kept], heights[is_kept]
    return cells + _offsets(around, cells), heights


def _beside(around: np.ndarray, cells: np.ndarray, step: tuple[int, ...]) -> np.ndarray:
    """(n,) heights a step beside cells, from a heat-map with a cell more on each side."""
    return np.asarray(around[tuple((cells + 1 + step).T)])


def _offsets(around: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(n, 3): where the parabola through a cell and its neighbours is highest, axis by axis."""
    offsets = np.zeros((len(cells), 3))
    here = _beside(around, cells, (0, 0, 0)).astype(np.float64)
    for axis, step in enumerate(np.eye(3, dtype=int)):
        before, after = (_beside(around, cells, tuple(s * step)) for s in (-1, 1))
        bend = before - 2 * here + after
        # Not at the side of what is known, and not on a plain.
        is_bent = np.isfinite(bend) & (bend < 0)
        slope = before[is_bent].astype(np.float64) - after[is_bent]
        offsets[is_bent, axis] = np.clip(slope / (2 * bend[is_bent]), -0.5, 0.5)
    return offsets
