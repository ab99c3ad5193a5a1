"""One defect from what several tiles saw of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.defect.line.verdict import Found

# Of the smaller box, what must lie in the other for both to be the same thing.
SAME_SHARE = 0.5
# A box that ends so near to its tile's end is cut there.
CUT_PX = 3.0
# Two ends of a line that was cut lie on each other, up to the error of a box.
GAP_PX = 4.0


@dataclass(frozen=True)
class Merged:
    """Boxes that are one defect."""

    box_px: tuple[float, float, float, float]
    score: float  # of the best
    kind: int
    parts: tuple[Found, ...]


def merge(found: Sequence[Found], size_px: tuple[int, int]) -> list[Merged]:
    """Join boxes of one class that are the same defect, or parts of one that tiles cut.

    The same: one lies with half of it or more in the other (in the smaller one: tiles see parts).
    Parts: they touch, and one ends at the end of its tile where the other goes on; so a scratch
    over many tiles is one, and two scratches side by side in a tile stay two.

    Args:
        found: in pixels of the frame.
        size_px: height and width of the frame, at whose ends nothing is cut.
    Returns:
        best score first.
    """
    if not found:
        return []
    boxes = np.array([one.box_px for one in found], np.float64)
    tiles = np.array([one.tile_px for one in found], np.float64)
    kinds = np.array([one.kind for one in found])
    joined = _same(boxes) | _continued(boxes, tiles, size_px)
    joined &= kinds[:, None] == kinds[None, :]
    groups = _groups(joined)
    merged = [_union([found[at] for at in group]) for group in groups]
    return sorted(merged, key=lambda one: (-one.score, one.box_px))


def _same(boxes: np.ndarray) -> np.ndarray:
    """(n, n) bool: intersection over the smaller box."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    smaller = np.minimum(areas[:, None], areas[None, :])
    return np.asarray(shared >= SAME_SHARE * np.maximum(smaller, 1e-9))


def _continued(boxes: np.ndarray, tiles: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """(n, n) bool: they touch, and the first is cut where the second goes on, or the reverse."""
    touch = (boxes[:, None, :2] <= boxes[None, :, 2:] + GAP_PX).all(axis=2)
    touch &= touch.T
    height, width = size_px
    goes_on = np.zeros_like(touch)
    for side, end in ((0, 0.0), (1, 0.0), (2, float(width)), (3, float(height))):
        outwards = -1.0 if side < 2 else 1.0
        ends_at_tile = outwards * (tiles[:, side] - boxes[:, side]) <= CUT_PX
        is_cut = ends_at_tile & (tiles[:, side] != end)
        # The other reaches beyond the tile that cut this one.
        beyond = outwards * (boxes[None, :, side] - tiles[:, None, side]) > 0
        goes_on |= is_cut[:, None] & beyond
    return touch & (goes_on | goes_on.T)


def _groups(joined: np.ndarray) -> list[list[int]]:
    """Connected components of a symmetric relation."""
    unseen = set(range(len(joined)))
    groups = []
    while unseen:
        group, frontier = [], [unseen.pop()]
        while frontier:
            at = frontier.pop()
            group.append(at)
            near = unseen.intersection(np.flatnonzero(joined[at]).tolist())
            unseen -= near
            frontier += near
        groups.append(sorted(group))
    return groups


def _union(parts: Sequence[Found]) -> Merged:
    boxes = np.array([part.box_px for part in parts])
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    best = max(parts, key=lambda part: part.score)
    return Merged((left, top, right, bottom), best.score, best.kind, tuple(parts))
