"""Cuts through a nodule for the page: axial and coronal, with outline and scale.

Shown as people read CT: the patient's left at the right, the head up, the back down. The cuts lie
along the scan's own slices, rows and columns.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable
from scipy import ndimage

from kits.medical.geometry import Volume
from kits.medical.results.pdf_text import INK, PLAIN, WHITE
from kits.medical.results.study import Nodule

FIELD_MM = 40.0  # at least
ROOM = 1.8  # field over the nodule's longest line
PIXELS = 320
WINDOW_HU = (-1350.0, 150.0)  # lung window: level -600, width 1500
OUTLINE = (255, 210, 40)
AIR_HU = -1000.0
BAR_MM = 10.0
TEXT_PT = 6


def cut(volume: Volume, nodule: Nodule, *, is_coronal: bool) -> tuple[np.ndarray, float]:
    """A square cut through a nodule.

    Returns:
        (PIXELS, PIXELS, 3) uint8, and the length of a side in mm.
    """
    finding, grid = nodule.finding, volume.grid
    field_mm = max(FIELD_MM, ROOM * nodule.measures.max_diameter_3d_mm)
    window = finding.window
    places = np.argwhere(finding.mask) + [part.start for part in window]
    centre = places.mean(axis=0)
    if not is_coronal:
        centre[0] = nodule.measures.slice_index
    right = np.array([0.0, 0.0, np.sign(grid.axes[2, 0]) / grid.spacing_mm[2]])
    if is_coronal:
        down = np.array([-np.sign(grid.axes[0, 2]) / grid.spacing_mm[0], 0.0, 0.0])
    else:
        down = np.array([0.0, np.sign(grid.axes[1, 1]) / grid.spacing_mm[1], 0.0])
    steps = ((np.arange(PIXELS) + 0.5) / PIXELS - 0.5) * field_mm
    index = centre + steps[:, None, None] * down + steps[None, :, None] * right
    grey = _sample(volume.voxels, index)
    low, high = WINDOW_HU
    shade = np.clip((grey - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    picture = np.repeat(shade[..., None], 3, axis=-1)
    picture[_edge(_inside(finding.mask, index - [part.start for part in window]))] = OUTLINE
    return picture, field_mm


def _sample(voxels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(h, w) values between voxels, from a small part of a large scan."""
    flat = index.reshape(-1, 3)
    start = np.clip(np.floor(flat.min(axis=0)).astype(int) - 1, 0, np.array(voxels.shape) - 1)
    stop = np.clip(np.ceil(flat.max(axis=0)).astype(int) + 2, start + 1, voxels.shape)
    part = voxels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].astype(np.float32)
    found: np.ndarray = ndimage.map_coordinates(
        part, (flat - start).T, order=1, mode="constant", cval=AIR_HU
    )
    return found.reshape(index.shape[:-1])


def _inside(mask: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(h, w) bool: whether the nearest voxel is one of the mask."""
    near = np.floor(index + 0.5).astype(int)
    is_in = ((near >= 0) & (near < mask.shape)).all(axis=-1)
    near = np.clip(near, 0, np.array(mask.shape) - 1)
    return is_in & mask[near[..., 0], near[..., 1], near[..., 2]]


def _edge(inside: np.ndarray) -> np.ndarray:
    """A line of two pixels around a shape, outside of it."""
    grown: np.ndarray = ndimage.binary_dilation(inside, iterations=2)
    return grown & ~inside


class Cut(Flowable):
    """A picture with the patient's sides and a bar of 10 mm."""

    def __init__(self, picture: np.ndarray, field_mm: float, side_mm: float) -> None:
        super().__init__()
        self._image = ImageReader(Image.fromarray(picture))
        self._field_mm = field_mm
        self.width = self.height = side_mm * mm

    def wrap(self, *_: float) -> tuple[float, float]:
        """Its size; it takes no other."""
        return self.width, self.height

    def draw(self) -> None:
        """Draw onto the page."""
        canvas: Canvas = self.canv
        side = self.width
        canvas.drawImage(self._image, 0, 0, side, side)
        canvas.setStrokeColor(WHITE)
        canvas.setLineWidth(1.6)
        length = side * BAR_MM / self._field_mm
        canvas.line(side - length - 5, 6, side - 5, 6)
        text = f"{BAR_MM:g} mm"
        # Above the bar, or to its left where it is short.
        wide = canvas.stringWidth(text, PLAIN, TEXT_PT)
        self._write(text, side - 5 - max(length, wide), 9)
        self._write("R", 4, side / 2 - 2)
        self._write("L", side - 8, side / 2 - 2)

    def _write(self, text: str, x: float, y: float) -> None:
        """White with a dark rim: it may lie on bright tissue."""
        written = self.canv.beginText(x, y)
        written.setFont(PLAIN, TEXT_PT)
        for mode, width in ((2, 1.2), (0, 0.0)):
            self.canv.setLineWidth(width)
            written.setTextRenderMode(mode)
            written.setStrokeColor(INK)
            written.setFillColor(WHITE)
            written.setTextOrigin(x, y)
            written.textOut(text)
        self.canv.drawText(written)
