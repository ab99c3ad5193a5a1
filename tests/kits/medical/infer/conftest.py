"""A toy thorax, and a network without weights that finds balls in it."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from kits.medical.geometry import Grid, Volume

LUNG_HU, TISSUE_HU, AIR_HU = -850, 40, -1000


def ellipsoid(shape, centre, radii):
    axes = [
        ((np.arange(size) - at) / radius) ** 2
        for size, at, radius in zip(shape, centre, radii, strict=True)
    ]
    return axes[0][:, None, None] + axes[1][:, None] + axes[2] <= 1


def toy_grid(shape, spacing_mm, origin_mm=(0.0, 0.0, 0.0), axes=None):
    # Slices to the head, rows to the back, columns to the left.
    upright = np.eye(3)[::-1]
    return Grid(shape, spacing_mm, origin_mm, upright if axes is None else axes)


def thorax(shape=(40, 48, 56), spacing_mm=(6.0, 6.0, 6.0), balls=(), sides=(0.3, 0.7)):
    """Soft tissue with a lung at each of `sides` (shares of the width), and balls (d, h, w, radius
    in voxels) in them."""
    voxels = np.full(shape, AIR_HU, np.int16)
    depth, height, width = shape
    middle = (depth / 2, height / 2, width / 2)
    voxels[ellipsoid(shape, middle, (1e6, height * 0.42, width * 0.46))] = TISSUE_HU
    for side in sides:
        at = (depth / 2, height / 2, width * side)
        lung = ellipsoid(shape, at, (depth * 0.42, height * 0.28, width * 0.15))
        voxels[lung] = LUNG_HU
    for *at, radius in balls:
        voxels[ellipsoid(shape, at, (radius,) * 3)] = TISSUE_HU
    return Volume(toy_grid(shape, spacing_mm), voxels)


def ball_network(sigma=1.5):
    """Heat: what is brighter than its surroundings; mask: what is brighter than lung.

    Sees 11 voxels far; sizes are multiples of 2.
    """

    def smooth(x, sigma, reach):
        return ndimage.gaussian_filter(x, sigma, mode="constant", radius=reach)

    def run(inputs):
        image = inputs["image"]
        assert image.dtype == np.float32
        assert all(size % 2 == 0 for size in image.shape[2:])
        masks, heats, textures = [], [], []
        for (x,) in (np.clip(image, -1000, 400) + 300) / 700:
            blob = smooth(x, sigma, 5) - smooth(x, 2 * sigma, 11)
            d, h, w = (size // 2 for size in x.shape)
            half = blob.reshape(d, 2, h, 2, w, 2).mean((1, 3, 5))
            masks.append(10 * (smooth(x, 0.7, 2) + 0.25))
            heats.append(20 * (half - 0.25))
            textures.append(np.stack([half, -half, 0 * half]))
        return {
            "mask": np.stack(masks)[:, None].astype(np.float32),
            "heat": np.stack(heats)[:, None].astype(np.float32),
            "texture": np.stack(textures).astype(np.float32),
        }

    return run


@pytest.fixture(scope="session")
def toy():
    return SimpleNamespace(
        thorax=thorax, network=ball_network, grid=toy_grid, ellipsoid=ellipsoid,
        LUNG_HU=LUNG_HU, TISSUE_HU=TISSUE_HU, AIR_HU=AIR_HU,
    )  # fmt: skip
