"""The definition of block means, in plain numpy. Dimensions: D slices, H rows, W columns."""

from __future__ import annotations

import numpy as np

Factors = tuple[int, int, int]

# Sums of more voxels than this could leave the integers that float32 holds exactly.
MAX_BLOCK = 512


def check(voxels: np.ndarray, factors: Factors) -> None:
    """Make sure that a volume can be averaged.

    Raises:
        ValueError: not (D, H, W) int16 with something inside, or blocks of no or too many voxels.
    """
    if voxels.dtype != np.int16 or voxels.ndim != 3 or not voxels.size:
        raise ValueError(
            f"voxels are {voxels.dtype} of shape={voxels.shape}; give (D, H, W) int16, not empty"
        )
    if len(factors) != 3 or min(factors) < 1 or int(np.prod(factors)) > MAX_BLOCK:
        raise ValueError(f"factors={factors} are not three from 1 with a product to {MAX_BLOCK}")


def block_mean_reference(voxels: np.ndarray, factors: Factors) -> np.ndarray:
    """Mean of each block of voxels; blocks at the far ends are of what is there.

    Args:
        voxels: (D, H, W) int16.
        factors: voxels of a block along each axis.

    Returns:
        (ceil(D/a), ceil(H/b), ceil(W/c)) float32: an exact sum, divided by the count in float32.

    Raises:
        ValueError: see `check`.
    """
    check(voxels, factors)
    sums = voxels.astype(np.int64)
    counts = np.ones((1, 1, 1), np.int64)
    for axis, factor in enumerate(factors):
        starts = np.arange(0, voxels.shape[axis], factor)
        sums = np.add.reduceat(sums, starts, axis=axis)
        held = np.diff(np.append(starts, voxels.shape[axis]))
        counts = counts * held.reshape([-1 if other == axis else 1 for other in range(3)])
    return sums.astype(np.float32) / counts.astype(np.float32)
