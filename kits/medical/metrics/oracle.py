"""The best single mask that one could draw knowing every reader's: what no model can pass."""

from __future__ import annotations

import numpy as np


def best_mask_dice(references: np.ndarray) -> float:
    """The largest mean Dice that any mask can have against several references at once.

    For a fixed size m the mean Dice is a sum over the mask's voxels of the weights
    2 / (m + size of reference) of the references that hold them, so the m heaviest voxels are
    best; all sizes are tried. Exact, not a search.

    Args:
        references: (R, D, H, W) bool.
    Returns:
        the mean over the references of the Dice of that mask; an empty reference scores 0.
    """
    masks = references.reshape(len(references), -1)
    sizes = masks.sum(1).astype(np.float64)
    if not sizes.any():
        return 0.0
    # Voxels that lie in the same references are alike: only their number matters.
    patterns, num = np.unique(masks[:, masks.any(0)], axis=1, return_counts=True)
    wanted = np.arange(1, int(num.sum()) + 1, dtype=np.float64)  # M sizes of the mask
    per_reference = 2 / (wanted[:, None] + sizes)  # (M, R)
    weights = per_reference @ patterns  # (M, P) of one voxel of each pattern
    order = np.argsort(-weights, axis=1, kind="stable")
    heaviest = np.take_along_axis(weights, order, 1)
    counts = num[order]
    before = np.cumsum(counts, 1) - counts
    taken = np.clip(wanted[:, None] - before, 0, counts)
    return float((taken * heaviest).sum(1).max() / len(references))
