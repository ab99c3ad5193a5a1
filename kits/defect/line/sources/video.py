"""Video: the Y plane as the decoder leaves it, without a conversion to colour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from kits.defect.line.sources.source import Shot

# Of which the first plane is 8-bit luma.
LUMA_FIRST = ("gray", "nv12", "nv21", "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p",
              "yuvj444p")  # fmt: skip
SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".ts", ".webm")


def count_frames(path: Path) -> int:
    """Frames of a file: its packets are counted, nothing is decoded.

    Raises:
        ValueError: it is no video.
    """
    with _open(path) as container:
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


class VideoSource:
    """Decodes one frame after the other, in one thread."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._container = _open(path)
        stream = self._container.streams.video[0]
        stream.thread_count = 1
        self._frames: Iterator[av.VideoFrame] = self._container.decode(stream)
        self._count = 0

    def capture(self, at: int) -> Shot:
        """A frame's luma, where the decoder put it; frames before are passed over."""
        while True:
            try:
                frame = next(self._frames, None)
            except av.FFmpegError as error:
                raise ValueError(f"{self._name}, frame {self._count}: {error}") from error
            if frame is None:
                raise EOFError(f"{self._name} has no frame {at}")
            self._count += 1
            if self._count > at:
                return Shot(luma(frame), f"{self._name}, frame {at}")


def luma(frame: av.VideoFrame) -> np.ndarray:
    """The Y plane of a frame, (H, W) uint8, a view; other formats than LUMA_FIRST become grey."""
    if frame.format.name not in LUMA_FIRST:
        frame = frame.reformat(format="gray")
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def open_source(path: str) -> VideoSource:
    """A source of a file's first video stream."""
    return VideoSource(Path(path))


def _open(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"source={path} is no video: {error}") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"source={path} has no video stream; name another file")
    return container
