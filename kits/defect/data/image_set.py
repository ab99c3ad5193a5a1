"""Images with boxes: the form that every source gives and every user of images takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from core.kit import Split


@dataclass(frozen=True)
class LabelledImage:
    """One image with its N boxes, and what is known of them beyond that.

    A length, width or contrast that is not known is nan; a source that knows none leaves None.
    """

    name: str
    pixels: np.ndarray  # (H, W) uint8 grey, or (H, W, 3) uint8 RGB, at native resolution
    boxes_px: np.ndarray  # (N, 4) float32 x1 y1 x2 y2, corners; right and bottom edge exclusive
    classes: np.ndarray  # (N,) int64
    template: np.ndarray | None = None  # like pixels: a defect-free part, registered or nearly
    mm_per_px: float | None = None
    lengths_mm: np.ndarray | None = None  # (N,) float32, along the defect
    widths_mm: np.ndarray | None = None  # (N,) float32
    segments_px: np.ndarray | None = None  # (N, 2, 2) float32 ends x y of line-like defects
    contrasts_to_noise: np.ndarray | None = None  # (N,) float32, mean change of grey over noise


class ImageSet(Protocol):
    """A source of labelled images: names by split, and one image at a time."""

    name: str  # the option's name
    class_names: tuple[str, ...]
    fingerprint: str  # sha256 of the content, or of the settings that make it
    has_template: bool

    def names(self, split: Split) -> list[str]:
        """Images of a split, always in the same order."""
        ...

    def load(self, name: str) -> LabelledImage:
        """One image; made or read at each call."""
        ...


SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def names_of(images: ImageSet, split: Literal["train", "validation", "test", "all"]) -> list[str]:
    """Images of a split, or of all three.

    Raises:
        ValueError: there is no such split, or it is empty.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}, all; set split")
    chosen: Sequence[Split] = SPLITS if split == "all" else (split,)
    names = [name for each in chosen for name in images.names(each)]
    if not names:
        raise ValueError(
            f"split={split} of data={images.name} holds no image; choose another split or other "
            "folds (data.test_folds, data.validation_folds)"
        )
    return names
