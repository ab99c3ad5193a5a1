"""Which cells of a frame do not look like a good part. Fills the protocols of `cells.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.triage import CELL, Counts, cell_grid, scan, to_planes
from kits.defect.line.cells import Cells
from kits.defect.line.recipe import Limits, Recipe
from kits.defect.line.registration import Placement, Registration

# What a recipe's arrays are called, and their kinds; of H x W pixels or R x C cells.
ARRAYS = {
    "template": ("H x W", np.uint8),  # a good part, pixel by pixel
    "low": ("H x W", np.uint8),  # see `Envelope`, and `RidgeMap` for its lowest bit
    "high": ("H x W", np.uint8),
    "stain_levels": ("R x C", np.float32),  # by which good parts differ from the envelope's middle
}


@dataclass(frozen=True)
class Looked:
    """What was measured in a frame."""

    placement: Placement
    counts: Counts

    @property
    def stain_levels(self) -> np.ndarray:
        """(R, C) float32: how far each cell's mean is from the envelope's middle."""
        return self.counts.excess.astype(np.float32) / np.maximum(self.counts.seen, 1)


class FrameTriage:
    """A recipe's triage for one camera; it remembers where the last part lay."""

    def __init__(self, recipe: Recipe) -> None:
        """Unpack what was learned.

        Raises:
            ValueError: the recipe has no triage, or its arrays are of another size.
        """
        _check(recipe)
        self._limits = recipe.limits
        self._size = recipe.height_px, recipe.width_px
        limits = recipe.limits
        self._registration = Registration(
            recipe.arrays["template"], limits.mismatch_levels, limits.most_gain
        )
        self._low = to_planes(recipe.arrays["low"], 0)
        self._high = to_planes(recipe.arrays["high"], 255)
        self._stain_levels = recipe.arrays["stain_levels"]

    def look(self, frame: np.ndarray) -> Cells:
        """Flag the cells of a (H, W) uint8 frame.

        Raises:
            ValueError: it is of another size, or no part of this kind lies where parts lie.
        """
        looked = self.measure(frame)
        mismatch, limit = looked.placement.mismatch, self._limits.mismatch_levels
        if mismatch > limit:
            raise ValueError(
                f"mismatch={mismatch:.1f} grey levels is above {limit:.1f}: there is no part of "
                "this product, or it lies too far off; check the part, or learn the recipe again"
            )
        scores = self.scores(looked)
        down, right = looked.placement.shift_px
        return Cells(scores >= 1, scores, (right, down))

    def measure(self, frame: np.ndarray, limits: Limits | None = None) -> Looked:
        """Measure a frame, with other limits on request."""
        if frame.shape != self._size:
            raise ValueError(
                f"frame of shape={frame.shape} came, the recipe is for {self._size}; "
                "set the camera or take another recipe"
            )
        limits = limits or self._limits
        placement = self._registration.locate(frame)
        counts = scan(
            frame, self._low, self._high, placement.shifts,
            levels=(limits.slight_levels, limits.outside_levels), contrasts=limits.ridge_contrasts,
            gain=placement.gain,
        )  # fmt: skip
        return Looked(placement, counts)

    def scores(self, looked: Looked) -> np.ndarray:
        """(R, C) float32: the worst of three channels over its limit; 1 and more is flagged."""
        limits, counts = self._limits, looked.counts
        outside = np.maximum(
            counts.outside * np.float32(1 / limits.outside_blocks),
            counts.slight * np.float32(1 / limits.slight_blocks),
        )
        ridge = counts.ridge * np.float32(1 / limits.ridge_blocks)
        stain = looked.stain_levels - self._stain_levels
        # What the gain left of a lamp that is brighter or darker today is no stain.
        common = np.partition(stain, stain.size // 2, axis=None)[stain.size // 2]
        stain = np.abs(stain - common) * np.float32(1 / limits.stain_levels)
        return np.maximum(np.maximum(outside, ridge), np.where(counts.seen > 0, stain, 0))


def open_triage(recipe: Recipe) -> FrameTriage:
    """What a triage process calls."""
    return FrameTriage(recipe)


def _check(recipe: Recipe) -> None:
    size = recipe.height_px, recipe.width_px
    if min(size) < CELL:
        raise ValueError(f"recipe is for {size[1]} x {size[0]} px; frames have {CELL} or more each")
    shapes = {"H x W": size, "R x C": cell_grid(*size)}
    for name, (kind, dtype) in ARRAYS.items():
        array = recipe.arrays.get(name)
        if array is None or array.shape != shapes[kind] or array.dtype != dtype:
            found = "none" if array is None else f"{array.dtype} of shape={array.shape}"
            raise ValueError(
                f"recipe.arrays[{name!r}] is {found}, not {np.dtype(dtype)} of {shapes[kind]}; "
                "learn the recipe"
            )
