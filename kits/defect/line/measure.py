"""How long, wide and large a defect is: from the pixels in its box, not from the box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Around a box: from here the background is known.
MARGIN_PX = 8
# A pixel belongs to the defect from this share of its contrast on ...
CONTRAST_SHARE = 0.5
# ... if it is so many robust deviations from the background.
DEVIATIONS = 4.0
# Fewer pixels than this tell nothing of a shape.
MIN_PIXELS = 4


@dataclass(frozen=True)
class Size:
    """In pixels."""

    length: float
    width: float
    area: float


def grow(
    box: tuple[float, float, float, float], size_px: tuple[int, int], by_px: int = MARGIN_PX
) -> tuple[int, int, int, int]:
    """A box with a margin, as whole pixels inside a frame of (height, width)."""
    left, top, right, bottom = box
    return (
        max(0, int(np.floor(left)) - by_px),
        max(0, int(np.floor(top)) - by_px),
        min(size_px[1], int(np.ceil(right)) + by_px),
        min(size_px[0], int(np.ceil(bottom)) + by_px),
    )


def measure(part: np.ndarray, inner: tuple[float, float, float, float]) -> Size:
    """The size of what stands out from the background inside a box.

    Background and its spread are the median and the median deviation of the margin. What stands
    out is taken as a cloud of points: its length along its main axis; its width is area over
    length, which is right for lines and within 1/4 for discs.

    Args:
        part: (h, w) uint8, the box with a margin, as `grow` gives it.
        inner: the box in coordinates of `part`.
    Returns:
        the box's own sides where nothing stands out.
    """
    left, top, right, bottom = inner
    sides = sorted((max(right - left, 1.0), max(bottom - top, 1.0)))
    from_box = Size(sides[1], sides[0], sides[0] * sides[1])
    rows = slice(max(0, int(top)), int(np.ceil(bottom)))
    columns = slice(max(0, int(left)), int(np.ceil(right)))
    outside = np.ones(part.shape, bool)
    outside[rows, columns] = False
    margin = part[outside].astype(np.float32)
    if margin.size < MIN_PIXELS:
        return from_box
    centre = np.median(margin)
    spread = 1.4826 * np.median(np.abs(margin - centre))
    off = np.abs(part[rows, columns].astype(np.float32) - centre)
    if not off.size:
        return from_box
    # The strongest hundredth, so that one hot pixel sets no threshold.
    peak = np.quantile(off, 1 - min(0.01, MIN_PIXELS / off.size))
    limit = max(CONTRAST_SHARE * peak, DEVIATIONS * spread, 1.0)
    y, x = np.nonzero(off >= limit)
    if len(x) < MIN_PIXELS:
        return from_box
    points = np.stack([x, y]).astype(np.float64)
    points -= points.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(points @ points.T)
    along = axes[:, 1] @ points
    length = float(np.ptp(along)) + 1.0
    area = float(len(x))
    return Size(length, area / length, area)
