"""Which found boxes are true: greedily, best score first, each true box once.

Dimensions: D found boxes, G true boxes, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.defect.data.image_set import LabelledImage
from kits.defect.detecting import Found

MAP_THRESHOLDS = tuple((0.5 + 0.05 * np.arange(10)).round(2).tolist())


@dataclass(frozen=True)
class Scored:
    """One image with what was found in it."""

    truth: LabelledImage
    found: Found


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(D, 4) and (G, 4) corners -> (D, G) intersection over union."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    total = areas[0][:, None] + areas[1][None] - inside
    result: np.ndarray = inside / np.maximum(total, 1e-9)
    return result


def match(scored: Scored, thresholds: Sequence[float], *, by_class: bool = True) -> np.ndarray:
    """Which true box each found one is, at each threshold.

    Args:
        scored: found boxes, best first, and true ones.
        thresholds: of the overlap.
        by_class: a box of another class is no match.
    Returns:
        (D, T) int64 place of the true box, -1 for none.
    """
    truth, found = scored.truth, scored.found
    result = np.full((len(found.boxes), len(thresholds)), -1)
    if not len(truth.boxes_px) or not len(found.boxes):
        return result
    table = overlaps(found.boxes, truth.boxes_px)
    if by_class:
        table = table * (found.classes[:, None] == truth.classes[None])
    limits = np.array(thresholds)
    is_free = np.ones((len(truth.boxes_px), len(limits)), bool)
    for row in np.flatnonzero(table.max(1) >= limits.min()):
        left = np.where(is_free, table[row][:, None], 0)
        best = left.argmax(0)
        is_match = left[best, range(len(limits))] >= limits
        result[row, is_match] = best[is_match]
        is_free[best[is_match], np.flatnonzero(is_match)] = False
    return result
