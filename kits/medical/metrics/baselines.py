"""What a few lines without any learning reach: to judge a model's numbers by."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

from kits.medical.geometry import Triple

THRESHOLD_HU = -400  # between lung and soft tissue
REACH_MM = 16.0  # nodules are at most 30 mm wide; beyond this a vessel or the wall is followed


def bright_component(
    voxels: np.ndarray, spacing_mm: Triple, centre: np.ndarray, threshold_hu: float = THRESHOLD_HU
) -> np.ndarray:
    """The bright part nearest to a nodule's centre, cut off at a distance from it.

    Args:
        voxels: (D, H, W) Hounsfield units, or what stands for them.
        spacing_mm: of the voxels.
        centre: (3,) index of the nodule's centre, which the method is told.
        threshold_hu: from here on a voxel is bright.
    Returns:
        (D, H, W) bool; empty where nothing near is bright.
    """
    offsets = [
        (np.arange(size) - middle) * step
        for size, middle, step in zip(voxels.shape, centre, spacing_mm, strict=True)
    ]
    square = sum(np.square(part) for part in np.ix_(*offsets))
    bright = (voxels >= threshold_hu) & (square <= REACH_MM**2)
    parts, number = label(bright)
    if number == 0:
        return bright
    distance = np.where(bright, square, np.inf)
    chosen = parts[np.unravel_index(int(distance.argmin()), distance.shape)]
    result: np.ndarray = parts == chosen
    return result
