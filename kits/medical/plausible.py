"""Do the voxels look like a chest? What no header tells: wrong rescaling, copied slices, a head.

D slices, H rows, W columns; Hounsfield units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kits.medical.pixels import AIR_HU
from kits.medical.refusals import Refusal

SAMPLES = 64  # along each axis: enough for shares and medians
AIR_BELOW_HU, LEAST_AIR = -500, 0.005
TISSUE_HU, LEAST_TISSUE = (-250, 250), 0.005
TISSUE_PEAK_HU = -140, 110  # fat to muscle, with room for calibration
LUNG_HU, LEAST_LUNG = (-940, -500), 0.01
# Median step of tissue from one slice to the next; where the headers change too, less is allowed.
JUMP_HU, RESCALED_JUMP_HU = 100, 20
FEWEST_VOXELS = 20


def check_densities(volume: np.ndarray) -> None:
    """Air, lung and soft tissue are where Hounsfield units put them.

    Raises:
        Refusal: they are not.
    """
    depth, height, width = volume.shape
    across = max(1, height // SAMPLES), max(1, width // SAMPLES)
    rows, columns = (size // step for size, step in zip((height, width), across, strict=True))
    part = volume[:: max(1, depth // SAMPLES), : rows * across[0], : columns * across[1]]
    # Averaged, because noise of air reaches the densities of lung.
    means = part.reshape(len(part), rows, across[0], columns, across[1]).mean((2, 4))
    means = means[means > AIR_HU]
    if not means.size or (means < AIR_BELOW_HU).mean() < LEAST_AIR:
        raise _implausible(volume, f"no air or lung (below {AIR_BELOW_HU} HU)")
    tissue = means[(means > AIR_BELOW_HU) & (means < 3 * -AIR_BELOW_HU)]
    near = (means > TISSUE_HU[0]) & (means < TISSUE_HU[1])
    if near.mean() < LEAST_TISSUE:
        raise _implausible(volume, f"no soft tissue ({TISSUE_HU[0]} .. {TISSUE_HU[1]} HU)")
    counts, edges = np.histogram(tissue, bins=100, range=(AIR_BELOW_HU, 3 * -AIR_BELOW_HU))
    at = int(np.convolve(counts, (1, 2, 1), "same").argmax())
    peak = float(edges[at] + edges[at + 1]) / 2
    if not TISSUE_PEAK_HU[0] <= peak <= TISSUE_PEAK_HU[1]:
        raise _implausible(
            volume,
            f"the peak of tissue at {peak:.0f} HU instead of "
            f"{TISSUE_PEAK_HU[0]} .. {TISSUE_PEAK_HU[1]}",
        )
    share = float(((means > LUNG_HU[0]) & (means < LUNG_HU[1])).mean())
    if share < LEAST_LUNG:
        raise Refusal(
            "no_lungs",
            f"{share:.2%} of the volume have the density of lung ({LUNG_HU[0]} .. {LUNG_HU[1]} "
            f"HU), at least {LEAST_LUNG:.0%} of a chest have; give a chest CT",
        )


def check_neighbours(volume: np.ndarray, rescales: Sequence[tuple[float, float]]) -> None:
    """Neighbouring slices continue each other, and none is there twice.

    Args:
        volume: (D, H, W) int16.
        rescales: D times slope and intercept, as the headers have them.

    Raises:
        Refusal: they do not.
    """
    steps = [max(1, size // SAMPLES) for size in volume.shape[1:]]
    part = np.ascontiguousarray(volume[:, :: steps[0], :: steps[1]])
    seen: dict[bytes, int] = {}
    for number, one in enumerate(part):
        before = seen.setdefault(one.tobytes(), number)
        if before != number and np.ptp(one) and np.array_equal(volume[before], volume[number]):
            raise Refusal(
                "repeated_pixels",
                f"slices {before + 1} and {number + 1} (from the lowest position on) have the same "
                "pixels, so one of both is not what it says; export the series again",
            )
    for number in range(len(part) - 1):
        one, other = part[number].astype(np.int32), part[number + 1].astype(np.int32)
        tissue = (np.abs(one) < 200) | (np.abs(other) < 200)
        if tissue.sum() < FEWEST_VOXELS:
            continue
        jump = float(np.median(other[tissue] - one[tissue]))
        is_rescaled = rescales[number] != rescales[number + 1]
        if abs(jump) > (RESCALED_JUMP_HU if is_rescaled else JUMP_HU):
            raise Refusal(
                "rescale_jump" if is_rescaled else "slice_jump",
                f"from slice {number + 1} to {number + 2} (from the lowest position on) tissue "
                f"changes by {jump:.0f} HU (rescale {rescales[number]}, {rescales[number + 1]}), "
                "which no anatomy does; export the series again",
            )


def _implausible(volume: np.ndarray, what: str) -> Refusal:
    return Refusal(
        "implausible_hu",
        f"the volume has {what}, values are {volume.min()} .. {volume.max()}: its rescaling is "
        "wrong, or it is no chest CT; export the scan again",
    )
