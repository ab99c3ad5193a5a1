"""Images in a folder, in the order of their names; colour becomes grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from kits.defect.line.sources.source import Shot

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
# A frame of a line camera may be large; a bomb is larger.
MAX_PIXELS = 400_000_000


def list_images(folder: Path) -> list[Path]:
    """The images of a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def list_cameras(folder: Path) -> dict[str, list[Path]]:
    """Cameras and their images: the folder itself, or one camera for each folder in it.

    Raises:
        ValueError: there is no image.
    """
    if images := list_images(folder):
        return {folder.name or "camera": images}
    below = {part.name: list_images(part) for part in sorted(folder.iterdir()) if part.is_dir()}
    found = {name: images for name, images in below.items() if images}
    if not found:
        raise ValueError(
            f"source={folder} holds no image ({', '.join(SUFFIXES)}), nor does a folder in it"
        )
    return found


def read_grey(file: Path) -> np.ndarray:
    """An image as (H, W) uint8.

    Raises:
        ValueError: it is damaged, or no image.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{file.name} has {image.width} x {image.height} px; cut it")
            return np.asarray(image if image.mode == "L" else image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from error


class FolderSource:
    """Reads one file after the other."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def capture(self, at: int) -> Shot:
        """The image at this place."""
        if at >= len(self._files):
            raise EOFError(f"the folder has {len(self._files)} images, none at {at}")
        return Shot(read_grey(self._files[at]), self._files[at].name)


def open_source(files: Sequence[str]) -> FolderSource:
    """A source of these files."""
    return FolderSource([Path(file) for file in files])
