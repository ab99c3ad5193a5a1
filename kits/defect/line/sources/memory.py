"""Frames in memory: what the line takes when no decoder, disk or cable stands before it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from kits.defect.line.sources.source import Shot


class MemorySource:
    """Frames of an array, again and again; some may fail, as cameras do."""

    def __init__(
        self,
        frames: np.ndarray,
        *,
        first: int = 0,
        stall_at: int = -1,
        stall_s: float = 0.0,
        wrong_size_every: int = 0,
    ) -> None:
        """Give frames from an array of (n, H, W) uint8.

        Args:
            frames: all there are.
            first: where to begin.
            stall_at: the frame, counted from 0, on which the camera hangs.
            stall_s: for how long.
            wrong_size_every: each so-manieth frame lacks its last row; 0: none.
        """
        self._frames = frames
        self._first = first
        self._stall_at, self._stall_s = stall_at, stall_s
        self._wrong_size_every = wrong_size_every

    def capture(self, at: int) -> Shot:
        """A frame, where it lies."""
        if at == self._stall_at:
            time.sleep(self._stall_s)
        place = (self._first + at) % len(self._frames)
        pixels = self._frames[place]
        if self._wrong_size_every and (at + 1) % self._wrong_size_every == 0:
            pixels = pixels[:-1]
        return Shot(pixels, f"frame {place}")


def open_source(
    path: str,
    first: int = 0,
    stall_at: int = -1,
    stall_s: float = 0.0,
    wrong_size_every: int = 0,
) -> MemorySource:
    """A source of the frames in an .npy file, which processes that read it share."""
    frames = np.load(Path(path), mmap_mode="r", allow_pickle=False)
    if frames.ndim != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"{path} holds {frames.dtype} of {frames.shape}, not (n, H, W) uint8")
    return MemorySource(
        frames, first=first, stall_at=stall_at, stall_s=stall_s, wrong_size_every=wrong_size_every
    )
