"""How a scan is searched. Voxels of the network's own grids, unless a unit is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Network = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Progress = Callable[[str, float], None]  # step, share of it that is done

AIR_HU = -1000.0  # what lies beyond a scan
HEAT_STRIDE = 2  # voxels of the image for one of heat and texture


@dataclass(frozen=True)
class Settings:
    """Of one search; the defaults are what was measured to be fast and exact."""

    # Sizes of what the network gets; a multiple of 16 is one of every network's own.
    multiple: int = 16
    # Findings below this score are left out.
    threshold: float = 0.5
    # Peaks of the coarse heat-map below this are not looked at again.
    candidate_threshold: float = 0.05
    max_candidates: int = 32
    # A voxel belongs to the mask from this probability on.
    mask_threshold: float = 0.5
    # Share of the fine look in the score; the coarse one has the rest. Of logits.
    fine_share: float = 0.5
    # What a tile sees beyond its core: as far as the student sees, so that a tile computes what
    # the whole scan at once would.
    halo: int = 32
    # Voxels of one tile with its halo, at most: decides over memory.
    max_tile_voxels: int = 8_500_000
    # A mask in a crop may be this wide before a larger crop is looked at.
    crop_mm: float = 20.0
    # Voxels of a mask that the crop is wider on each side.
    crop_halo: int = 16
    # How often a crop may double to hold a mask.
    max_growth: int = 2
    # Crops at a time.
    batch: int = 1
    # Of our own steps; the network has its own.
    threads: int = 1

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("multiple", "max_candidates", "max_tile_voxels", "batch", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1; give 1 or more")
        for name in ("threshold", "candidate_threshold", "mask_threshold", "fine_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not from 0 to 1; set {name}")
        for name in ("halo", "crop_halo", "max_growth", "crop_mm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative; give 0 or more")
