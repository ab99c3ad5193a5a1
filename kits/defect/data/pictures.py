"""From the bytes of an image file to pixels of 8 bits, or to the reason why not."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# Mode of a file -> mode it is read in.
MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}
ORIENTATION = 274  # EXIF tag


def read_pixels(content: bytes) -> np.ndarray:
    """Decode an image.

    Returns:
        (H, W) or (H, W, 3) uint8.
    Raises:
        ValueError: it is no image, ends early, or is of a kind that cannot be read without loss.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            _check(image)
            return np.array(image.convert(MODES[image.mode]))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"is no image that can be read: {error}") from error


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height by the header alone.

    Raises:
        ValueError: as `read_pixels`, but without looking at the pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            _check(image)
            return image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"is no image that can be read: {error}") from error


def _check(image: Image.Image) -> None:
    if image.mode not in MODES:
        raise ValueError(f"has mode={image.mode}, which is not 8 bits of grey or RGB; convert it")
    # Pillow reads all of a PNG for it, and nobody turns one by it.
    if image.format != "PNG" and image.getexif().get(ORIENTATION, 1) != 1:
        raise ValueError("is turned by its EXIF orientation, boxes are not; save it upright")
