"""What several readers say about one nodule: bit k of a voxel is reader k's mark.

Ties: exactly half of the readers is a consensus ("at least 50 %").
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kits.medical.geometry import Window

MAX_READERS = 8  # bits of a voxel


def readers_of(votes: np.ndarray) -> tuple[int, ...]:
    """Numbers of the readers with at least one voxel."""
    seen = int(np.bitwise_or.reduce(votes, axis=None)) if votes.size else 0
    return tuple(number for number in range(MAX_READERS) if seen >> number & 1)


def count(votes: np.ndarray, readers: Iterable[int]) -> np.ndarray:
    """How many of these readers marked each voxel: uint8, of the votes' shape."""
    total = np.zeros(votes.shape, np.uint8)
    for number in readers:
        total += votes >> number & 1
    return total


def consensus(votes: np.ndarray, readers: Iterable[int], num_readers: int = 0) -> np.ndarray:
    """Voxels that at least half of the readers marked.

    Args:
        votes: uint8 bits.
        readers: whose bits count.
        num_readers: of how many readers half is taken, where some marked no voxel; 0: of `readers`.
    Returns:
        bool, of the votes' shape; empty where there is no reader.
    """
    chosen = tuple(readers)
    total = count(votes, chosen)
    return (2 * total >= max(num_readers, len(chosen))) & (total > 0)


def merge(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Masks of readers 0, 1, ... -> votes."""
    stacked = [np.asarray(mask, bool) for mask in masks]
    if not 1 <= len(stacked) <= MAX_READERS:
        raise ValueError(f"{len(stacked)} readers are not 1 to {MAX_READERS}; merge some first")
    votes = np.zeros(stacked[0].shape, np.uint8)
    for number, mask in enumerate(stacked):
        votes |= mask.astype(np.uint8) << number
    return votes


def box_of(marked: np.ndarray) -> Window:
    """The smallest window around what is not zero.

    Raises:
        ValueError: all is zero.
    """
    if not np.any(marked):
        raise ValueError("the mask is empty; a nodule has at least one voxel")
    window = []
    for axis in range(marked.ndim):
        others = tuple(other for other in range(marked.ndim) if other != axis)
        found = np.flatnonzero(np.any(marked, axis=others))
        window.append(slice(int(found[0]), int(found[-1]) + 1))
    return window[0], window[1], window[2]


def equivalent_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere with this volume."""
    return float((6 * volume_mm3 / np.pi) ** (1 / 3))
