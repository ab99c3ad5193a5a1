"""What good parts look like, block by block: learned from a few of them. Numpy alone.

Dimensions: N good frames; H, W pixels. At each pixel stands the mean of the block of 2x2 that
starts there, as in `kernels.triage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.triage import CELL, block_means, ridges

ROWS_AT_A_TIME = 64
OFF = 255  # a contrast that no ridge has
BORDER_PX = 8  # as far as a block's ridge looks to its sides and along


@dataclass(frozen=True)
class Envelope:
    """Lowest and highest block means of good parts; 0 and 255 where nothing is known."""

    low: np.ndarray  # (H, W) uint8
    high: np.ndarray  # (H, W) uint8

    @classmethod
    def of_template(cls, template: np.ndarray) -> Envelope:
        """Of one good part alone, each point of which may lie a pixel off."""
        means = block_means(template)
        low, high = means.copy(), means
        # A block that starts in the last row or column is half out of view.
        low[-1], low[:, -1], high[-1], high[:, -1] = 0, 0, 255, 255
        return cls(low, high).widen()

    def widen(self) -> Envelope:
        """As if each part might lie a pixel off, in any direction."""
        return Envelope(_extreme(self.low, np.minimum), _extreme(self.high, np.maximum))


@dataclass(frozen=True)
class RidgeMap:
    """Where good parts have ridges: a mark in the lowest bit of `low`, as the kernel reads it."""

    stands: np.ndarray  # (4, H, W) int16: of the template, see `kernels.triage.ridges`

    @classmethod
    def of(cls, template: np.ndarray) -> RidgeMap:
        """Look at a (H, W) uint8 template: the mean of good parts, so that no grain is left."""
        return cls(ridges(block_means(template)))

    def mark(self, envelope: Envelope, contrasts: Sequence[int]) -> Envelope:
        """Mark what comes within half of what counts as a ridge, and two pixels around it.

        At the border nobody knows what goes on beyond, so there everything is marked.

        Args:
            envelope: its lower side loses at most one grey level, or gains one where it is 0.
            contrasts: of each direction; OFF marks nothing.
        """
        low = envelope.low
        found = np.zeros(low.shape, np.uint8)
        for stands, contrast in zip(self.stands, contrasts, strict=True):
            if contrast < OFF:
                found |= stands > contrast / 2
        wide = _extreme(_extreme(found, np.maximum), np.maximum)
        for edge in (
            wide[:BORDER_PX],
            wide[-BORDER_PX:],
            wide[:, :BORDER_PX],
            wide[:, -BORDER_PX:],
        ):
            edge[:] = 1
        odd = (np.maximum(low, 1) - 1) | 1
        is_open = (low == 0) & (envelope.high == 255)
        return Envelope(np.where(wide & ~is_open, odd, low & 254), envelope.high)


def align(values: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring what a frame shows to where the template has it.

    Args:
        values: (H, W), of a frame's pixels.
        shifts: (R, C, 2) int32, of each cell.

    Returns:
        (H, W) values; (H, W) bool, whether the whole block was in view.
    """
    height, width = values.shape
    cells = shifts.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]
    rows = cells[..., 0] + np.arange(height, dtype=np.int32)[:, None]
    columns = cells[..., 1] + np.arange(width, dtype=np.int32)
    is_seen = (rows >= 0) & (rows < height - 1) & (columns >= 0) & (columns < width - 1)
    np.clip(rows, 0, height - 1, out=rows)
    np.clip(columns, 0, width - 1, out=columns)
    return values[rows, columns], is_seen


def learn_envelope(blocks: np.ndarray, is_seen: np.ndarray, deviations: float) -> Envelope:
    """The envelope of some good parts.

    Args:
        blocks: (N, H, W) uint8, aligned.
        is_seen: (N, H, W) bool; a place that half of the parts never showed stays open.
        deviations: standard deviations from the mean that are always inside.

    Returns:
        whatever was seen, and that much beside the mean.
    """
    low = np.empty(blocks.shape[1:], np.uint8)
    high = np.empty(blocks.shape[1:], np.uint8)
    for top in range(0, len(low), ROWS_AT_A_TIME):
        rows = slice(top, top + ROWS_AT_A_TIME)
        low[rows], high[rows] = _bounds(blocks[:, rows], is_seen[:, rows], deviations)
    return Envelope(low, high)


def _bounds(
    blocks: np.ndarray, is_seen: np.ndarray, deviations: float
) -> tuple[np.ndarray, np.ndarray]:
    count = is_seen.sum(0, dtype=np.float32)
    values = np.where(is_seen, blocks, 0).astype(np.float32)
    mean = values.sum(0) / np.maximum(count, 1)
    variance = np.square(values).sum(0) / np.maximum(count, 1) - mean * mean
    spread = deviations * np.sqrt(np.maximum(variance * count / np.maximum(count - 1, 1), 0))
    least = np.where(is_seen, blocks, 255).min(0)
    most = np.where(is_seen, blocks, 0).max(0)
    low = np.minimum(least, np.clip(np.floor(mean - spread), 0, 255))
    high = np.maximum(most, np.clip(np.ceil(mean + spread), 0, 255))
    is_open = 2 * count < len(blocks)
    low[is_open], high[is_open] = 0, 255
    return low.astype(np.uint8), high.astype(np.uint8)


def _extreme(values: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """Of each pixel and its eight neighbours."""
    rows = values.copy()
    choose(rows[1:], values[:-1], out=rows[1:])
    choose(rows[:-1], values[1:], out=rows[:-1])
    columns = rows.copy()
    choose(columns[:, 1:], rows[:, :-1], out=columns[:, 1:])
    choose(columns[:, :-1], rows[:, 1:], out=columns[:, :-1])
    return columns
