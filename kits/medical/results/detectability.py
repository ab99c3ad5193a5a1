"""What a scan cannot show: told from slice thickness and noise, before anybody believes a "none".

Published: with slices of 5 mm instead of 1 mm sensitivity falls from 84.8 to 71.6 %, and to 61.4 %
where the distance of slices is the nodule's diameter or more (arXiv 2605.00971). Readers mark, and
networks learn, little below 4 mm.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from kits.medical.geometry import Volume
from kits.medical.results.study import NotDetectable
from kits.medical.results.wording import LANGUAGES, Wording, wording

FLOOR_MM = 4.0
THIN_MM = 1.5
PATCH_MM = 6.0  # of the local standard deviation
SOFT_TISSUE_HU = (-50, 150)
NUM_SLICES = 16  # that noise is measured on
BIN_HU = 1.0
# Rose's criterion: a disk is seen if its contrast is this many times its own noise.
ROSE = 5.0
GROUND_GLASS_CONTRAST_HU = 100.0  # of faint ones against lung
GRAIN_MM = 1.0  # over which noise is correlated
UNKNOWN_HU = float("nan")


def noise_hu(volume: Volume) -> float:
    """Noise of a scan: the commonest standard deviation of small patches of soft tissue.

    Args:
        volume: of the chest.

    Returns:
        Hounsfield units; NaN where there is too little soft tissue.

    Source: Christianson et al., American Journal of Roentgenology 205, 2015, W23-W31.
    """
    depth = volume.grid.shape[0]
    slices = np.unique(np.linspace(0.1 * depth, 0.9 * depth, NUM_SLICES).astype(int))
    sizes = [max(3, round(PATCH_MM / step)) for step in volume.grid.spacing_mm[1:]]
    found = []
    for index in slices[slices < depth]:
        image = volume.voxels[index].astype(np.float32)
        mean = ndimage.uniform_filter(image, sizes)
        square = ndimage.uniform_filter(image * image, sizes)
        low, high = SOFT_TISSUE_HU
        # Patches with an edge in them have no place in the mode.
        found.append(np.sqrt(np.maximum(square - mean * mean, 0))[(mean > low) & (mean < high)])
    deviations = np.concatenate(found)
    deviations = deviations[deviations < 200]
    if deviations.size < 1000:
        return UNKNOWN_HU
    counts = np.bincount((deviations / BIN_HU).astype(int))
    smooth = ndimage.uniform_filter1d(counts.astype(np.float64), 5)
    return (float(smooth.argmax()) + 0.5) * BIN_HU


def not_detectable(spacing_mm: float, thickness_mm: float | None, noise: float) -> NotDetectable:
    """What is missed, in words.

    Args:
        spacing_mm: between slices.
        thickness_mm: of a slice by the headers.
        noise: from `noise_hu`.
    """
    thickness = max(spacing_mm, thickness_mm or 0.0)
    smallest = math.ceil(10 * max(FLOOR_MM, thickness) - 1e-6) / 10
    faint = 2 / math.sqrt(math.pi) * ROSE * noise / GROUND_GLASS_CONTRAST_HU * GRAIN_MM
    lines = {
        language: tuple(_lines(wording(language), thickness, smallest, noise, faint))
        for language in LANGUAGES
    }
    return NotDetectable(smallest, thickness, noise, lines)


def _lines(
    say: Wording, thickness: float, smallest: float, noise: float, faint: float
) -> list[str]:
    is_known = math.isfinite(noise)
    shown = f"{noise:.0f}" if is_known else say("limits.unknown")
    lines = [
        say("limits.smallest", smallest=f"{smallest:g}", thickness=f"{thickness:g}", noise=shown)
    ]
    if thickness > THIN_MM:
        lines.append(say("limits.thick", thickness=f"{thickness:g}"))
        lines.append(say("limits.ratio", size=f"{thickness:g}"))
    if not is_known:
        lines.append(say("limits.no_noise"))
    elif faint > smallest:
        lines.append(say("limits.noise", noise=shown, size=f"{faint:.1f}"))
    return [*lines, say("limits.contact"), say("limits.volume")]
