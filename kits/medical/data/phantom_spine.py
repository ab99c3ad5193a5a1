"""A simulated spine: vertebrae with discs between them, canal, arches and spinous processes."""

from __future__ import annotations

import numpy as np

from kits.medical.data.phantom_field import Axes, blend, coverage
from kits.medical.data.phantom_thorax import Thorax

VERTEBRA_MM = 23.0
CORTEX_HU, CANCELLOUS_HU, DISC_HU, CANAL_HU = 480.0, 170.0, 85.0, 32.0


def draw_spine(hu: np.ndarray, axes: Axes, thorax: Thorax) -> None:
    """Draw it into an image, in place; axes are (z, y, x) in mm."""
    middle = thorax.spine_y_mm
    rows = slice(*np.searchsorted(axes[1], [middle - 24, middle + 72]).tolist())
    columns = slice(*np.searchsorted(axes[2], [-42.0, 42.0]).tolist())
    if rows.start == rows.stop or columns.start == columns.stop:
        return
    z = axes[0][:, None, None].astype(np.float32)
    y = (axes[1][rows] - middle).astype(np.float32)[None, :, None]
    x = axes[2][columns].astype(np.float32)[None, None, :]
    part = hu[:, rows, columns]
    wave = np.cos(2 * np.pi * z / VERTEBRA_MM)
    waist = 1.6 * np.clip(-wave, 0, 1)
    body = 15.5 - waist - np.sqrt((x / 1.12) ** 2 + (y - 1) ** 2)
    disc = np.clip((wave - 0.84) * 12, 0, 1)
    _bone(part, body, disc)
    # Pedicles, laminae and transverse processes belong to each vertebra's upper half.
    arch = np.clip(1.2 - 1.5 * wave, 0, 1)
    ring = 5.2 - np.abs(np.hypot(x, y - 24) - 14)
    process = 4.2 - np.hypot(np.abs(x), np.clip(34 - y, 0, None)) - np.clip(y - 54, 0, None)
    across = 4.5 - np.hypot(np.clip(np.abs(x) - 32, 0, None), (y - 27) * 0.8)
    _bone(part, np.maximum(np.maximum(ring, process), across) - 3 * (1 - arch), 0 * wave)
    blend(part, CANAL_HU, coverage(9.5 - np.hypot(x, y - 24) + 0 * z, 1.0))


def _bone(part: np.ndarray, distance: np.ndarray, disc: np.ndarray) -> None:
    distance = np.broadcast_to(distance, part.shape).astype(np.float32)
    blend(part, CORTEX_HU + (DISC_HU - CORTEX_HU) * disc, coverage(distance, 1.0))
    blend(part, CANCELLOUS_HU + (DISC_HU - CANCELLOUS_HU) * disc, coverage(distance - 1.4, 1.0))
