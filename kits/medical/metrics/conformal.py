"""A threshold that misses at most a share alpha of nodules, with a guarantee, and what it costs.

Split conformal risk control (Angelopoulos et al., 2022). A patient's loss at a threshold is the
share of his nodules that no finding at or above it hits: between 0 and 1, rising with the
threshold. With n patients who have nodules, the highest threshold whose mean loss R obeys

    (n * R + 1) / (n + 1) <= alpha

keeps the EXPECTED loss of the next patient from the same source at or below alpha. That is a
promise about patients like these (same scanners, same readers' rule), on average over calibrations;
not about every single site or patient. Below 1 / alpha - 1 patients (19 for 5 %) no threshold can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.medical.metrics.froc import ScanResult, match

SPLITS = 200


@dataclass(frozen=True)
class PatientScores:
    """One patient, all scans together."""

    patient: str
    num_scans: int
    hits: np.ndarray  # (nodules,) best score on each included nodule; -inf: never found
    false_positives: np.ndarray  # (n,) scores

    def loss(self, threshold: float) -> float:
        """Share of nodules missed at a threshold; there is one nodule or more."""
        return float(np.mean(self.hits < threshold))


def by_patient(scans: Sequence[ScanResult]) -> list[PatientScores]:
    """Gather scans by patient, sorted by name."""
    result = []
    for patient in sorted({scan.patient for scan in scans}):
        mine = [scan for scan in scans if scan.patient == patient]
        hits, wrong = [], []
        for scan in mine:
            found = match(scan)
            for target in scan.targets:
                if target.is_included:
                    index = found.best.get(target.name)
                    hits.append(-np.inf if index is None else float(scan.scores[index]))
            wrong.append(scan.scores[found.false_positives])
        result.append(
            PatientScores(patient, len(mine), np.array(hits, float), np.concatenate(wrong))
        )
    return result


def choose_threshold(patients: Sequence[PatientScores], alpha: float) -> float | None:
    """The highest threshold with the guarantee.

    Args:
        patients: calibration; those without nodules say nothing here.
        alpha: share of nodules that may be missed, 0 to 1.
    Returns:
        the threshold, or None where none keeps alpha: too few patients, or too many nodules that
        the detector never finds.
    Raises:
        ValueError: alpha is not a share.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha} is not between 0 and 1; 0.05 allows one miss in twenty")
    ill = [patient for patient in patients if len(patient.hits)]
    if not ill:
        return None
    # The mean loss changes just above a nodule's score, by that nodule's share of its patient.
    scores = np.concatenate([patient.hits for patient in ill])
    shares = np.concatenate([np.full(len(p.hits), 1 / len(p.hits)) for p in ill])
    order = np.argsort(scores, kind="stable")
    scores, lost = scores[order], np.cumsum(shares[order])
    candidates, first = np.unique(scores, return_index=True)
    # Of a threshold AT a score, what lies strictly below it is missed.
    missed = np.where(first > 0, lost[np.maximum(first - 1, 0)], 0.0)
    allowed = ((missed + 1) / (len(ill) + 1) <= alpha + 1e-12) & np.isfinite(candidates)
    return float(candidates[allowed][-1]) if allowed.any() else None


def fp_per_scan(patients: Sequence[PatientScores], threshold: float) -> float:
    """What a threshold costs."""
    wrong = sum(int(np.sum(patient.false_positives >= threshold)) for patient in patients)
    return wrong / sum(patient.num_scans for patient in patients)


def conformal_metrics(
    patients: Sequence[PatientScores], alpha: float, *, splits: int = SPLITS, seed: int = 0
) -> dict[str, float]:
    """The guarantee tried: calibrate on one half of the patients, count misses on the other.

    Args:
        patients: none of them seen in training.
        alpha: share of nodules that may be missed.
        splits: random halvings.
        seed: the same seed halves alike.
    Returns:
        flat keys that begin `conformal_<alpha>_percent.`: `num_patients` (with nodules); where
        there is one, `threshold` from all patients; `splits_with_threshold` (a share), and over
        those splits the mean held-out `miss_rate`, its cost `fp_per_scan`, and `tolerance`: by how
        much the miss rate may exceed alpha by chance (two binomial standard errors).
    """
    ill = sum(1 for patient in patients if len(patient.hits))
    result: dict[str, float] = {"num_patients": ill}
    threshold = choose_threshold(patients, alpha)
    if threshold is not None:
        result["threshold"] = threshold
    generator = np.random.default_rng(seed)
    misses, costs = [], []
    for _ in range(splits):
        order = generator.permutation(len(patients))
        half = len(patients) // 2
        calibration = [patients[index] for index in order[:half]]
        held_out = [patients[index] for index in order[half:]]
        chosen = choose_threshold(calibration, alpha)
        losses = [p.loss(chosen) for p in held_out if len(p.hits)] if chosen is not None else []
        if chosen is not None and losses:
            misses.append(float(np.mean(losses)))
            costs.append(fp_per_scan(held_out, chosen))
    result["splits_with_threshold"] = len(misses) / splits
    if misses:
        result["miss_rate"] = float(np.mean(misses))
        result["fp_per_scan"] = float(np.mean(costs))
        # Splits share their patients: only these are independent.
        result["tolerance"] = 2 * float(np.sqrt(alpha * (1 - alpha) / ill))
    return {f"conformal_{100 * alpha:g}_percent.{key}": value for key, value in result.items()}
