"""Sensitivity beside its false positives per scan: FROC and CPM by the rule of LUNA16.

A finding hits a nodule if its centre lies closer to the nodule's than the nodule's radius. Of the
findings that hit the same nodule the highest score counts, the others are neither hits nor false
positives. So is a finding that hits an excluded nodule (marked by too few readers). Every scan
counts in FP/scan, also one without nodules.

LUNA16's script draws straight lines between the points of the curve. Here each number is that of a
threshold one can really set: the largest sensitivity at or below a rate of false positives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kits.medical.geometry import Triple
from kits.medical.metrics.bootstrap import Interval, patient_counts, percentiles

FP_RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # per scan; CPM is the mean sensitivity at these
RATE_NAMES = ("1_8th", "1_4th", "half", "1", "2", "4", "8")


@dataclass(frozen=True)
class Target:
    """A nodule as a point with a radius."""

    name: str
    centre_mm: Triple
    diameter_mm: float
    is_included: bool  # False: a finding on it is neither a hit nor a false positive


@dataclass(frozen=True)
class ScanResult:
    """Nodules and findings of one scan."""

    name: str
    patient: str
    targets: tuple[Target, ...]
    centres_mm: np.ndarray  # (F, 3) of the findings
    scores: np.ndarray  # (F,)


@dataclass(frozen=True)
class Matches:
    """What each finding of a scan is."""

    best: Mapping[str, int]  # included target -> its highest finding; missed ones are absent
    false_positives: np.ndarray  # (n,) numbers of findings


@dataclass(frozen=True)
class Curve:
    """Points of the FROC, one for each threshold, highest first."""

    thresholds: np.ndarray  # (T,) a finding counts from this score on
    fp_per_scan: np.ndarray  # (T,) rising
    sensitivity: np.ndarray  # (T,) rising
    num_targets: int
    num_scans: int


def match(scan: ScanResult) -> Matches:
    """Decide for one scan which findings are hits, which false positives, which neither."""
    best: dict[str, int] = {}
    is_near = np.zeros(len(scan.scores), bool)
    for target in scan.targets:
        offsets = scan.centres_mm.reshape(-1, 3) - np.asarray(target.centre_mm)
        near = np.linalg.norm(offsets, axis=1) < target.diameter_mm / 2
        is_near |= near
        if target.is_included and near.any():
            found = np.flatnonzero(near)
            best[target.name] = int(found[scan.scores[found].argmax()])
    return Matches(best, np.flatnonzero(~is_near))


def froc(scans: Sequence[ScanResult]) -> Curve:
    """The curve over all thresholds; equal scores share one point.

    Raises:
        ValueError: there is no scan, or no included nodule.
    """
    table = _Table.of(scans)
    return table.curve(np.ones(table.num_patients))


def sensitivity_at(curve: Curve, fp_per_scan: float) -> float:
    """The largest sensitivity whose threshold gives at most this many FP/scan."""
    allowed = curve.sensitivity[curve.fp_per_scan <= fp_per_scan]
    return float(allowed[-1]) if len(allowed) else 0.0


def threshold_at(curve: Curve, fp_per_scan: float) -> float:
    """The lowest threshold that gives at most this many FP/scan; inf: none does."""
    allowed = curve.thresholds[curve.fp_per_scan <= fp_per_scan]
    return float(allowed[-1]) if len(allowed) else float("inf")


def cpm(curve: Curve) -> float:
    """Competition performance metric: mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4, 8 FP/scan."""
    return float(np.mean([sensitivity_at(curve, rate) for rate in FP_RATES]))


def froc_metrics(
    scans: Sequence[ScanResult], *, replicates: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Flat keys: `cpm`, `sensitivity_at_<rate>_fp` with `.low`, `.high` (95 %, by patient).

    Rates are FP/scan: 1_8th, 1_4th, half, 1, 2, 4, 8; `threshold_at_<rate>_fp` where one exists.
    """
    table = _Table.of(scans)
    curve = table.curve(np.ones(table.num_patients))
    _, counts = patient_counts([scan.patient for scan in scans], replicates=replicates, seed=seed)
    drawn = [table.curve(row) for row in counts if table.targets_of(row) > 0]
    result: dict[str, float] = {"num_scans": curve.num_scans, "num_targets": curve.num_targets}
    result |= _with_interval("cpm", cpm(curve), [cpm(one) for one in drawn])
    for rate, name in zip(FP_RATES, RATE_NAMES, strict=True):
        values = [sensitivity_at(one, rate) for one in drawn]
        result |= _with_interval(f"sensitivity_at_{name}_fp", sensitivity_at(curve, rate), values)
        threshold = threshold_at(curve, rate)
        if np.isfinite(threshold):
            result[f"threshold_at_{name}_fp"] = threshold
    return result


def _with_interval(key: str, value: float, drawn: Sequence[float]) -> dict[str, float]:
    interval: Interval = percentiles(np.array(drawn))
    return {key: value, f"{key}.low": interval.low, f"{key}.high": interval.high}


@dataclass(frozen=True)
class _Table:
    """All findings of all scans, highest score first, with the patients they belong to."""

    scores: np.ndarray  # (n,) of hits (the best of each target) and false positives
    is_hit: np.ndarray  # (n,)
    patient: np.ndarray  # (n,) its number
    targets: np.ndarray  # (P,) included targets of each patient
    scans: np.ndarray  # (P,) scans of each patient

    @classmethod
    def of(cls, scans: Sequence[ScanResult]) -> _Table:
        if not any(target.is_included for scan in scans for target in scan.targets):
            raise ValueError("no scan holds an included nodule; sensitivity needs one or more")
        names = sorted({scan.patient for scan in scans})
        number = {name: index for index, name in enumerate(names)}
        targets, num_scans = np.zeros(len(names)), np.zeros(len(names))
        rows: list[tuple[float, bool, int]] = []
        for scan in scans:
            found, who = match(scan), number[scan.patient]
            targets[who] += sum(target.is_included for target in scan.targets)
            num_scans[who] += 1
            rows += [(float(scan.scores[index]), True, who) for index in found.best.values()]
            rows += [(float(scan.scores[index]), False, who) for index in found.false_positives]
        rows.sort(key=lambda row: -row[0])
        scores = np.array([row[0] for row in rows], np.float64)
        is_hit = np.array([row[1] for row in rows], bool)
        patient = np.array([row[2] for row in rows], np.intp)
        return cls(scores, is_hit, patient, targets, num_scans)

    @property
    def num_patients(self) -> int:
        return len(self.targets)

    def targets_of(self, weights: np.ndarray) -> float:
        return float(weights @ self.targets)

    def curve(self, weights: np.ndarray) -> Curve:
        """The curve with each patient counted as often as its weight says."""
        weight = weights[self.patient]
        scans = weights @ self.scans
        hits = np.cumsum(weight * self.is_hit) / self.targets_of(weights)
        wrong = np.cumsum(weight * ~self.is_hit) / scans
        # Only the last of equal scores is a threshold's point.
        last = np.append(self.scores[1:] != self.scores[:-1], True)[: len(self.scores)]
        return Curve(
            self.scores[last],
            wrong[last],
            hits[last],
            int(self.targets_of(weights)),
            int(scans),
        )
