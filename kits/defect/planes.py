"""What a network sees of an image: its planes. No torch; training, evaluation and service ask here.

Dimensions: P planes, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

# Weights of red, green and blue in grey (ITU-R BT.601), as 8-bit integers that sum to 256.
GREY_WEIGHTS = np.array([77, 150, 29], np.uint16)


def planes_of(pixels: np.ndarray, template: np.ndarray | None = None) -> np.ndarray:
    """An image, and with a template: image, template, and how far they differ.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.
        template: of the same shape; both are then taken as grey.
    Returns:
        (P, H, W) uint8; P is 1 for grey, 3 for RGB, 3 with a template.
    Raises:
        ValueError: the shapes do not belong together.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"pixels={pixels.shape} is not (H, W) or (H, W, 3); convert the image")
    if template is None:
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if template.shape != pixels.shape:
        raise ValueError(
            f"template={template.shape} is not of the image's shape {pixels.shape}; register it"
        )
    image, other = grey(pixels), grey(template)
    # Of unsigned numbers the smaller difference is the one that did not wrap.
    return np.stack([image, other, np.maximum(image, other) - np.minimum(image, other)])


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 -> (H, W) uint8."""
    if pixels.ndim == 2:
        return pixels
    result: np.ndarray = ((pixels.astype(np.uint16) @ GREY_WEIGHTS + 128) >> 8).astype(np.uint8)
    return result


def num_planes(pixels: np.ndarray, *, has_template: bool) -> int:
    """As many as `planes_of` gives."""
    return 3 if has_template or pixels.ndim == 3 else 1


def padded(planes: np.ndarray, multiple: int) -> np.ndarray:
    """Zeros at the right and at the bottom, so that both sides are multiples."""
    height, width = planes.shape[-2:]
    more = (-height % multiple, -width % multiple)
    if more == (0, 0):
        return planes
    before = [(0, 0)] * (planes.ndim - 2)
    return np.pad(planes, [*before, (0, more[0]), (0, more[1])])
