"""What a camera's process asks for frames, and how it gets one from settings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

KINDS = ("folder", "memory", "video")


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame as it came; of the size it has, which may not be the recipe's."""

    pixels: np.ndarray  # (H, W) uint8; rows may have gaps
    name: str = ""  # file, or place in a video


class Source(Protocol):
    """A camera, or what stands for one; belongs to one process."""

    def capture(self, at: int) -> Shot:
        """A frame.

        Args:
            at: which, counted from 0; a camera takes what comes. It goes on where another process
                of this camera died, and never goes back.
        Raises:
            ValueError: it is damaged.
            EOFError: there is none.
        """
        ...


def open_source(settings: Mapping[str, Any]) -> Source:
    """Open a source in the process that reads it.

    Args:
        settings: `kind`, one of KINDS, and what `open_<kind>` in that module takes.
    Raises:
        ValueError, OSError: there is nothing of that kind to read.
    """
    kind = settings["kind"]
    if kind not in KINDS:
        raise ValueError(f"source.kind={kind!r} is not one of {', '.join(KINDS)}")
    module = importlib.import_module(f"kits.defect.line.sources.{kind}")
    source: Source = module.open_source(**{k: v for k, v in settings.items() if k != "kind"})
    return source
