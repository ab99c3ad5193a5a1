"""What a triage says of a frame: which cells the detector has to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kits.defect.line.recipe import Recipe

CELL_PX = 64


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of 64 px from the top left; those at the right and bottom may be smaller."""

    flagged: np.ndarray  # (rows, columns) bool
    scores: np.ndarray  # (rows, columns) float32; the larger, the farther from what is good
    # How far right and down of its place in the recipe the part lies.
    shift_px: tuple[float, float] = (0.0, 0.0)


class Triage(Protocol):
    """Looks at every pixel of a frame; it may remember the frames before."""

    def look(self, frame: np.ndarray) -> Cells:
        """Flag the cells of a (H, W) uint8 frame."""
        ...


class OpenTriage(Protocol):
    """How a process gets one."""

    def __call__(self, recipe: Recipe) -> Triage:
        """A triage for one camera."""
        ...


def num_cells(height_px: int, width_px: int) -> tuple[int, int]:
    """Rows and columns of a frame's cells."""
    return -(-height_px // CELL_PX), -(-width_px // CELL_PX)
