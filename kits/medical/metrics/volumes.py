"""How far measured volumes are from the readers', beside how far readers are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.medical.metrics.bootstrap import ratio_interval


@dataclass(frozen=True)
class Volumes:
    """One nodule's volumes in mm3."""

    patient: str
    model: float
    consensus: float  # of all readers
    readers: tuple[float, ...]


def volume_metrics(volumes: Sequence[Volumes]) -> dict[str, float]:
    """Flat keys, all in percent of the consensus volume.

    `volume_error_percent` is the mean of |model - consensus| / consensus, with `.low` and `.high`
    (95 %, by patient); `human_volume_error_percent` the same of each reader against the readers'
    consensus (himself included, which favours the human); `volume_bias_percent` the mean signed
    error: above 0, volumes come out too large; `human_volume_cv_percent` the mean over nodules of
    the readers' coefficient of variation (population), where two or more readers drew.
    """
    known = [one for one in volumes if one.consensus > 0]
    if not known:
        raise ValueError("no nodule has a consensus of its readers; a volume error needs one")
    relative = np.array([100 * (one.model / one.consensus - 1) for one in known])
    human = [
        float(np.mean([100 * abs(reader / one.consensus - 1) for reader in one.readers]))
        for one in known
    ]
    patients = [one.patient for one in known]
    interval = ratio_interval(patients, np.abs(relative), np.ones(len(known)))
    spread = [
        100 * float(np.std(one.readers) / np.mean(one.readers))
        for one in known
        if len(one.readers) > 1
    ]
    result = {
        "volume_error_percent": float(np.abs(relative).mean()),
        "volume_error_percent.low": interval.low,
        "volume_error_percent.high": interval.high,
        "volume_error_median_percent": float(np.median(np.abs(relative))),
        "volume_bias_percent": float(relative.mean()),
    }
    if spread:
        result["human_volume_error_percent"] = float(np.mean(human))
        result["human_volume_cv_percent"] = float(np.mean(spread))
    return result
