"""Line-like defects: how much of their length was found, whatever boxes do to thin things.

Dimensions: D found boxes, G true defects.
"""

from __future__ import annotations

import numpy as np

from kits.defect.metrics.matching import Scored, overlaps

LOOSE_OVERLAP = 0.33
NEAR_PX = 4.0  # by which a found box is wider, as scratches are thinner than pixels of a grid


def hits(scored: Scored, threshold: float) -> np.ndarray:
    """(G,) whether each defect was found at all: by overlap, or at its middle, of any class.

    An inspector stops the part in both cases; the right class is mAP's business.
    """
    found = scored.found.above(threshold).boxes
    truth = scored.truth.boxes_px
    if not len(found) or not len(truth):
        return np.zeros(len(truth), bool)
    by_overlap = overlaps(found, truth).max(0) >= LOOSE_OVERLAP
    return by_overlap | point_hits(scored, threshold)


def point_hits(scored: Scored, threshold: float) -> np.ndarray:
    """(G,) whether the middle of a found box lies on the defect: in its box, on its line."""
    found = scored.found.above(threshold).boxes
    truth = scored.truth
    if not len(found) or not len(truth.boxes_px):
        return np.zeros(len(truth.boxes_px), bool)
    middle = (found[:, :2] + found[:, 2:]) / 2
    low, high = truth.boxes_px[:, :2] - NEAR_PX, truth.boxes_px[:, 2:] + NEAR_PX
    is_inside = ((middle[:, None] >= low) & (middle[:, None] <= high)).all(2)
    for k in line_like(scored):
        assert truth.segments_px is not None
        start, end = truth.segments_px[k]
        along = end - start
        share = ((middle - start) @ along / max(float(along @ along), 1e-9)).clip(0, 1)
        apart = np.linalg.norm(middle - (start + share[:, None] * along), axis=1)
        # A found part of a line lies on it; its box is as wide as the part is long.
        is_inside[:, k] = apart <= NEAR_PX
    result: np.ndarray = is_inside.any(0)
    return result


def line_like(scored: Scored) -> np.ndarray:
    """Places of the defects with two ends."""
    segments = scored.truth.segments_px
    if segments is None or not len(segments):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.isfinite(segments).all((1, 2)))


def found_shares(scored: Scored, threshold: float) -> np.ndarray:
    """Of each line-like defect, the share of its length inside found boxes (any class)."""
    found = scored.found.above(threshold).boxes
    places = line_like(scored)
    shares = np.zeros(len(places))
    for number, k in enumerate(places):
        assert scored.truth.segments_px is not None
        start, end = scored.truth.segments_px[k].astype(np.float64)
        shares[number] = covered(start, end, found)
    return shares


def covered(start: np.ndarray, end: np.ndarray, boxes: np.ndarray) -> float:
    """Share of a segment inside the union of boxes, each a little larger."""
    along = end - start
    spans = []
    for box in boxes.astype(np.float64):
        low, high = 0.0, 1.0
        for axis in range(2):
            near, far = box[axis] - NEAR_PX, box[axis + 2] + NEAR_PX
            if abs(along[axis]) < 1e-9:
                if not near <= start[axis] <= far:
                    low, high = 1.0, 0.0
                continue
            first, last = sorted(
                ((near - start[axis]) / along[axis], (far - start[axis]) / along[axis])
            )
            low, high = max(low, first), min(high, last)
        if low < high:
            spans.append((low, high))
    total, reached = 0.0, 0.0
    for low, high in sorted(spans):
        total += max(0.0, high - max(low, reached))
        reached = max(reached, high)
    return total
