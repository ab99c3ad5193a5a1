"""How far two measurements of one nodule differ though nothing changed.

The model is held to what readers reach: the coefficient of variation of the volume among the four
readers of LIDC-IDRI (896 nodules marked by all four), by size and texture.
"""

from __future__ import annotations

import itertools
import math

from kits.medical.results.study import Interval

# Diameter of the sphere with the nodule's volume, at the middle of each group of nodules
# (< 6, 6-10, 10-20, >= 20 mm) -> coefficient of variation.
CV_BY_DIAMETER = ((4.8, 0.227), (7.7, 0.184), (13.5, 0.138), (24.0, 0.117))
CV_SUBSOLID = 0.20  # non-solid and part-solid nodules of any size, at least
Z_95 = 1.959964


def sphere_diameter(volume_mm3: float) -> float:
    """Diameter of the sphere of a volume."""
    return (6 * volume_mm3 / math.pi) ** (1 / 3)


def volume_cv(volume_mm3: float, texture: str) -> float:
    """Coefficient of variation of a nodule's volume, linear between the groups.

    Raises:
        ValueError: the volume is not positive.
    """
    if not volume_mm3 > 0:
        raise ValueError(f"volume_mm3={volume_mm3} is not positive; measure a nodule")
    diameter = sphere_diameter(volume_mm3)
    known = CV_BY_DIAMETER
    cv = known[0][1] if diameter <= known[0][0] else known[-1][1]
    for (low, low_cv), (high, high_cv) in itertools.pairwise(known):
        if low < diameter <= high:
            cv = low_cv + (high_cv - low_cv) * (diameter - low) / (high - low)
    return cv if texture == "solid" else max(cv, CV_SUBSOLID)


def log_sigma(volume_mm3: float, texture: str) -> float:
    """Standard deviation of the logarithm of the volume, of a log-normal with that CV."""
    return math.sqrt(math.log1p(volume_cv(volume_mm3, texture) ** 2))


def volume_interval(volume_mm3: float, texture: str) -> Interval:
    """The 95 % interval of a volume."""
    factor = math.exp(Z_95 * log_sigma(volume_mm3, texture))
    return volume_mm3 / factor, volume_mm3 * factor
