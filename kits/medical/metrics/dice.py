"""Dice in six named conventions. The convention alone moves a human reader from 0.77 to 0.91.

R readers, D slices, H rows, W columns. `readers` is (R, D, H, W) bool, the masks of those readers
who marked the nodule with at least one voxel; `model` is (D, H, W) bool on the same grid. A
function gives the overlaps of the model with the readers, or, without a model, of each reader with
the others: the human's number in the same convention.

Rules for all of them:
- a consensus is every voxel that at least half of its readers marked; exactly half is enough;
- two empty masks score 0, as one empty mask does: a nodule is there, so silence is no agreement;
- masks leave out the readers' contour line (its pixels are the first outside the nodule), but in
  `contour_kept_vs_others`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import binary_dilation

Overlaps = np.ndarray  # (n, 2) float64: twice the common voxels, and the sum of both masks' voxels
Convention = Callable[[np.ndarray, "np.ndarray | None"], Overlaps]

# Beside each other in a slice: an outline of the first pixels outside is a mask grown by this.
IN_PLANE_CROSS = np.zeros((3, 3, 3), bool)
IN_PLANE_CROSS[1, 1, :] = IN_PLANE_CROSS[1, :, 1] = True


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice of two masks of one shape; 0 where both are empty."""
    return float(dice_of(_overlap(first, second)[None])[0])


def dice_of(overlaps: Overlaps) -> np.ndarray:
    """(n,) Dice of each pair of masks."""
    twice, total = overlaps[:, 0], overlaps[:, 1]
    return np.divide(twice, total, out=np.zeros(len(overlaps)), where=total > 0)


def consensus_of(readers: np.ndarray) -> np.ndarray:
    """(D, H, W) bool: voxels that at least half of the readers marked."""
    marks = readers.sum(0, dtype=np.uint8)
    return (2 * marks >= len(readers)) & (marks > 0)


def consensus_of_others(readers: np.ndarray) -> np.ndarray:
    """(R, D, H, W) bool: for each reader the consensus of all the others, two readers or more."""
    if len(readers) < 2:
        raise ValueError("readers=1 has no others; their consensus needs two readers or more")
    others = readers.sum(0, dtype=np.int16) - readers
    return (2 * others >= len(readers) - 1) & (others > 0)


def pairwise_3d(readers: np.ndarray, model: np.ndarray | None = None) -> Overlaps:
    """Convention 1: reader against reader, each pair, in 3D. The model: against each reader."""
    if model is not None:
        return np.stack([_overlap(model, reader) for reader in readers])
    pairs = [(i, j) for i in range(len(readers)) for j in range(i)]
    return np.array([_overlap(readers[i], readers[j]) for i, j in pairs]).reshape(-1, 2)


def vs_consensus_with_self_3d(readers: np.ndarray, model: np.ndarray | None = None) -> Overlaps:
    """Convention 2: against the consensus of ALL readers in 3D, a human's own mask included.

    It flatters the human by about 0.06, not the model, which has no voice in the consensus.
    """
    reference = consensus_of(readers)
    masks = readers if model is None else model[None]
    return np.stack([_overlap(mask, reference) for mask in masks])


def vs_others_3d(readers: np.ndarray, model: np.ndarray | None = None) -> Overlaps:
    """Convention 3: against the consensus of the OTHERS in 3D: the fair comparison, and ours.

    For each reader the same reference judges him and the model.
    """
    references = consensus_of_others(readers)
    masks = readers if model is None else np.broadcast_to(model, readers.shape)
    return np.stack([_overlap(*pair) for pair in zip(masks, references, strict=True)])


def pooled_vs_others(nodules: list[Overlaps]) -> float:
    """Convention 4: voxels of all nodules pooled, so that the large ones decide."""
    twice, total = np.concatenate(nodules).sum(0)
    return float(twice / total) if total else 0.0


def central_slice_2d(readers: np.ndarray, model: np.ndarray | None = None) -> Overlaps:
    """Convention 5: as convention 2, in the one slice where the consensus of all is largest.

    The lowest of equally large ones. What 2D papers report: an easy slice, a flattering reference.
    """
    areas = consensus_of(readers).sum((1, 2))
    middle = slice(int(areas.argmax()), int(areas.argmax()) + 1)
    return vs_consensus_with_self_3d(readers[:, middle], None if model is None else model[middle])


def contour_kept_vs_others(readers: np.ndarray, model: np.ndarray | None = None) -> Overlaps:
    """Convention 6: as convention 3, every mask with its contour line, the model's too."""
    return vs_others_3d(
        keep_contour(readers), None if model is None else keep_contour(model[None])[0]
    )


def keep_contour(masks: np.ndarray) -> np.ndarray:
    """(R, D, H, W) -> (R, D, H+2, W+2) masks grown by the outline that was left out of them."""
    padded = np.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.stack([binary_dilation(mask, IN_PLANE_CROSS) for mask in padded])


# What follows dice_ in a key -> how it is computed for one nodule; pooling comes after.
CONVENTIONS: Mapping[str, Convention] = {
    "vs_readers": pairwise_3d,
    "vs_consensus_with_self": vs_consensus_with_self_3d,
    "vs_others": vs_others_3d,
    "central_slice": central_slice_2d,
    "contour_kept_vs_others": contour_kept_vs_others,
}


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    common = np.count_nonzero(first & second)
    return np.array([2 * common, np.count_nonzero(first) + np.count_nonzero(second)], np.float64)
