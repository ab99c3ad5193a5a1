"""Where the detector looks: tiles at native resolution around cells, in a grid, or drawn by lot.

A tile sees its core wholly: what lies there is at least `halo_px` from the tile's border, or the
tile ends where the frame does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kits.defect.line.cells import CELL_PX

SNAP_PX = 32
# So many cells that are not seen yet are worth a whole tile; fewer get a small one each.
WORTH_CELLS = 3

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive


@dataclass(frozen=True)
class Grid:
    """How frames of one size are tiled."""

    height_px: int
    width_px: int
    tile_px: int
    halo_px: int
    has_small: bool = True  # the detector takes tiles for one cell, too

    @property
    def core_px(self) -> int:
        """Side of what a tile inside the frame sees wholly: whole cells."""
        room = self.tile_px - 2 * self.halo_px
        return max(CELL_PX, room - room % CELL_PX)

    @property
    def small_px(self) -> int:
        """Side of a tile for one cell; as large as the others where it would not be smaller."""
        side = CELL_PX + 2 * self.halo_px
        side += -side % SNAP_PX
        return min(side, self.tile_px) if self.has_small else self.tile_px

    def blocks(self) -> list[Box]:
        """The frame cut into cores: each pixel is in one."""
        step = self.core_px
        return [
            (left, top, min(left + step, self.width_px), min(top + step, self.height_px))
            for top in range(0, self.height_px, step)
            for left in range(0, self.width_px, step)
        ]

    def around(self, core: Box, side_px: int | None = None) -> Box:
        """The tile with a core in its middle, moved into the frame where it would leave it."""
        side_px = side_px or self.tile_px
        left, right = self._span(core[0], core[2], self.width_px, side_px)
        top, bottom = self._span(core[1], core[3], self.height_px, side_px)
        return left, top, right, bottom

    def _span(self, low: int, high: int, size: int, side_px: int) -> tuple[int, int]:
        start = low - (side_px - (high - low)) // 2
        start -= start % SNAP_PX
        # Not so far that the core's end comes too near to the tile's.
        if start + side_px < min(high + self.halo_px, size):
            start += SNAP_PX
        start = max(0, min(start, size - side_px))
        return start, min(start + side_px, size)

    def every(self) -> list[Box]:
        """Tiles over the whole frame, as few as have the halo: brute force."""
        return sorted({self.around(block) for block in self.blocks()}, key=lambda b: (b[1], b[0]))

    def cover(self, flagged: np.ndarray) -> list[Box]:
        """Tiles that see every flagged cell wholly; few, though not always the fewest.

        From the top: of the tiles whose core begins with the next cell's row and holds the cell,
        the one with most cells that are not covered yet; or a small one, if those are few.

        Args:
            flagged: (rows, columns) bool, cells.
        """
        cells = self.core_px // CELL_PX
        has_small = self.small_px < self.tile_px
        columns = flagged.shape[1]
        places = [(row, column) for row, column in np.argwhere(flagged).tolist()]
        left = set(places)
        tiles: list[Box] = []
        for row, first in places:
            if (row, first) not in left:
                continue
            inside = [
                [
                    (r, c)
                    for r in range(row, row + cells)
                    for c in range(start, start + cells)
                    if (r, c) in left
                ]
                for start in range(
                    max(0, first - cells + 1), max(0, min(first, columns - cells)) + 1
                )
            ]
            most = max(inside, key=len)
            if has_small and len(most) < WORTH_CELLS:
                start, size, side_px, most = first, 1, self.small_px, [(row, first)]
            else:
                start = max(0, first - cells + 1) + inside.index(most)
                size, side_px = cells, self.tile_px
            core = (
                start * CELL_PX,
                row * CELL_PX,
                min((start + size) * CELL_PX, self.width_px),
                min((row + size) * CELL_PX, self.height_px),
            )
            tiles.append(self.around(core, side_px))
            left.difference_update(most)
        return tiles


def draw_blocks(
    blocks: Sequence[Box], flagged: np.ndarray, share: float, random: np.random.Generator
) -> list[Box]:
    """Blocks to look at although the triage did not ask for it.

    Each one that has a cell which is not flagged is drawn with the same probability, by itself, so
    that what is found in the drawn ones tells of all.

    Args:
        blocks: of the frame.
        flagged: (rows, columns) bool, cells.
        share: probability of each.
        random: where chance comes from.
    """
    if share <= 0:
        return []
    chosen = np.flatnonzero(random.random(len(blocks)) < share)
    return [blocks[at] for at in chosen.tolist() if not _cells_in(flagged, blocks[at]).all()]


def touches(flagged: np.ndarray, box: Iterable[float]) -> bool:
    """Whether a box overlaps a flagged cell."""
    left, top, right, bottom = box
    cells = flagged[
        max(0, int(top // CELL_PX)) : int(-(-bottom // CELL_PX)),
        max(0, int(left // CELL_PX)) : int(-(-right // CELL_PX)),
    ]
    return bool(cells.any())


def _cells_in(flagged: np.ndarray, block: Box) -> np.ndarray:
    left, top, right, bottom = block
    return flagged[top // CELL_PX : -(-bottom // CELL_PX), left // CELL_PX : -(-right // CELL_PX)]
