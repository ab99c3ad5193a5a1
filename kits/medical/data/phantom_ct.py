"""From a simulated chest to a CT of it: slices with a thickness, a kernel, noise.

Dimensions: D slices, H rows, W columns. Axes are positions (z, y, x) in millimetres.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from kits.medical.data.phantom_field import Axes
from kits.medical.data.phantom_noise import EDGE_MM, Acquisition, Noise
from kits.medical.data.phantom_tissue import Chest

FINEST_MM = 1.3  # the chest is looked at in layers no thicker than this
SLICES_AT_ONCE = 40


def scan(chest: Chest, axes: Axes, look: Acquisition, seed: tuple[int, ...]) -> np.ndarray:
    """(D, H, W) int16: the CT.

    Args:
        chest: who is scanned.
        axes: positions of slices, rows and columns.
        look: how.
        seed: of the noise.
    """
    shape = tuple(len(axis) for axis in axes)
    hu = np.empty(shape, np.int16)
    noise = Noise(look, shape, seed)  # type: ignore[arg-type]
    for start in range(0, shape[0], SLICES_AT_ONCE):
        near = (axes[0][start : start + SLICES_AT_ONCE], *axes[1:])
        image = _slices(chest, near, look)
        noise.add(image, start, chest.thorax.body.on(near))
        np.clip(np.rint(image, out=image), -1024, 3071, out=image)
        hu[start : start + len(image)] = image
    return hu


def _slices(chest: Chest, axes: Axes, look: Acquisition) -> np.ndarray:
    """Thick, blurred slices of the chest."""
    step = look.spacing_mm[0]
    layers = int(np.ceil(step / FINEST_MM))
    fine_mm = step / layers
    sigma = look.thickness_mm / 2.355
    reach = int(np.ceil(2.2 * sigma / fine_mm))
    count = (len(axes[0]) - 1) * layers + 1 + 2 * reach
    heights = axes[0][0] + (np.arange(count) - reach) * fine_mm
    fine = chest.hu((heights, *axes[1:]))
    offset = np.arange(-reach, reach + 1)
    profile = np.exp(-0.5 * (offset * fine_mm / sigma) ** 2)
    profile = (profile / profile.sum()).astype(np.float32)
    image = np.zeros((len(axes[0]), *fine.shape[1:]), np.float32)
    for position, weight in enumerate(profile):
        image += weight * fine[position : position + (len(image) - 1) * layers + 1 : layers]
    return _reconstruct(image, look)


def _reconstruct(image: np.ndarray, look: Acquisition) -> np.ndarray:
    """Blur in the plane; sharp kernels enhance edges."""
    for axis in (1, 2):
        weights = _gaussian(look.sigma_mm / look.spacing_mm[axis], 3.0)
        if look.edge:
            wide = _gaussian(EDGE_MM / look.spacing_mm[axis], 2.5)
            # Sharpens each axis by itself: 1 + edge in all, less what the surroundings hold.
            each = np.sqrt(1 + look.edge) - 1
            weights = (1 + each) * np.pad(weights, len(wide) // 2)
            weights -= each * np.convolve(weights / (1 + each), wide, "same")
        image = correlate1d(image, weights, axis=axis, mode="nearest")
    return image


def _gaussian(sigma: float, reach: float) -> np.ndarray:
    far = int(np.ceil(reach * sigma))
    weights = np.exp(-0.5 * (np.arange(-far, far + 1) / sigma) ** 2)
    return weights / weights.sum()
