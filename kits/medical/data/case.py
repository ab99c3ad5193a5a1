"""A scan with its truth, from whatever source.

Dimensions: D slices, H rows, W columns of the scan; d, h, w of a nodule's window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from core.kit import Split
from kits.medical.geometry import Volume, Window


@dataclass(frozen=True)
class TrueNodule:
    """What readers marked: bit k of a voxel's votes is reader k's mark."""

    name: str
    window: Window  # of the scan's voxels
    votes: np.ndarray  # (d, h, w) uint8 bits, of the window
    num_readers: int  # who marked it
    diameter_mm: float  # of the sphere with the volume of the >= 50 % consensus
    # Medians of the readers' ratings where there are some: LIDC's 1 to 5 (1 non-solid, 5 solid).
    texture: float | None = None
    malignancy: float | None = None

    def reader(self, number: int) -> np.ndarray:
        """(d, h, w) bool: the mask of one reader."""
        return (self.votes >> number & 1).astype(bool)


@dataclass(frozen=True)
class Case:
    """One scan, or a patch of one."""

    name: str
    patient: str  # splits never part one
    volume: Volume
    nodules: tuple[TrueNodule, ...]
    # "patch": a cut around its one nodule, in which nothing else may be counted as absent;
    # "scan": every nodule inside is known.
    extent: Literal["scan", "patch"]
    # "hu"; "slice": each slice came on a scale of its own, and what is given is near to HU at best
    # (`even.py`).
    intensity: Literal["hu", "slice"] = "hu"
    is_phantom: bool = False
    # Everything inside the lungs, nodules included; where the source knows it.
    lungs: np.ndarray | None = None  # (D, H, W) bool


class Cases(Protocol):
    """A data source: names by split, and one case at a time."""

    name: str
    fingerprint: str  # sha256 of the data, or of what it is made from
    max_readers: int

    def names(self, split: Split) -> Sequence[str]:
        """Cases of a split, always in the same order; patients never in two splits."""
        ...

    def load(self, name: str) -> Case:
        """One case; made or read at each call."""
        ...
