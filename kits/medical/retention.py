"""What a smaller network keeps of a larger one, on the same scans: hits and outlines. No torch.

Two detectors are compared where both have the same rate of false positives, because each can be
had more sensitive by letting it cry more often. Outlines are compared where both were told the
place, so that a missed nodule is counted once, among the hits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kits.medical.looking import Seen
from kits.medical.metrics.bootstrap import ratio_interval
from kits.medical.metrics.dice import dice_of, vs_others_3d
from kits.medical.metrics.froc import (
    FP_RATES,
    RATE_NAMES,
    Curve,
    ScanResult,
    cpm,
    froc,
    match,
    sensitivity_at,
    threshold_at,
)
from kits.medical.metrics.human_normalised import SIZE_BINS, Outlines

CONFIDENCE = 0.95
ALL = "all"
# Of the tables by size and texture.
TABLE_RATE = "1"


@dataclass(frozen=True)
class Outline:
    """One nodule's Dice against the consensus of the other readers, a mean over its readers."""

    name: str  # of the nodule, unique in the comparison
    patient: str
    diameter_mm: float
    texture: str | None
    dice: float
    human: float  # of each reader against the others


@dataclass(frozen=True)
class Answers:
    """What one network made of all cases."""

    scans: tuple[ScanResult, ...]  # empty where the cases are patches
    outlines: tuple[Outline, ...]
    textures: Mapping[str, str]  # nodule -> its texture, where readers said one

    @classmethod
    def of(cls, seen: Seen) -> Answers:
        """Of what a network was seen to do; outlines of nodules that two readers or more drew."""
        drawn = [one.outlines for one in seen.drawn]
        return cls(
            tuple(seen.scans),
            tuple(_outline(one) for one in drawn if len(one.readers) > 1),
            {one.name: one.texture for one in drawn if one.texture},
        )


def _outline(one: Outlines) -> Outline:
    return Outline(
        one.name,
        one.patient,
        one.diameter_mm,
        one.texture,
        dice=float(dice_of(vs_others_3d(one.readers, one.model)).mean()),
        human=float(dice_of(vs_others_3d(one.readers)).mean()),
    )


@dataclass(frozen=True)
class Kept:
    """Of so many hits of the teacher, so many of the student."""

    kept: int
    of: int

    @property
    def share(self) -> float:
        """Kept of all."""
        return self.kept / self.of

    @property
    def low(self) -> float:
        """One-sided 95 % lower bound of the share (Clopper and Pearson)."""
        if self.kept == 0:
            return 0.0
        return float(stats.beta.ppf(1 - CONFIDENCE, self.kept, self.of - self.kept + 1))


def retention_metrics(teacher: Answers, student: Answers) -> dict[str, float]:
    """Flat keys of what is kept and lost.

    Returns:
        `hits_kept_at_<rate>_fp`: share of the teacher's hits that the student has too, where both
        give at most this rate of false positives per scan, with `.low` (one-sided 95 %), `.of` (the
        teacher's hits), `.gained` (hits of the student alone) and `.teacher_fp_per_scan`,
        `.student_fp_per_scan` (what each really gives there), at 1 FP/scan also by size and
        texture; `cpm_loss_points`; `dice_loss_points`: the teacher's Dice against the other readers
        less the student's, in points, paired, with `.low` and `.high` (95 %, by patient), by size
        and texture too; both networks' own numbers as `teacher.` and `student.`. What cannot be had
        from the cases, as hits from patches, is left out.
    Raises:
        ValueError: the two did not see the same nodules.
    """
    result: dict[str, float] = {}
    if teacher.scans:
        result |= _hits(teacher, student)
    if teacher.outlines:
        result |= _outlines(teacher, student)
    return result


def _hits(teacher: Answers, student: Answers) -> dict[str, float]:
    if [scan.name for scan in teacher.scans] != [scan.name for scan in student.scans]:
        raise ValueError("teacher and student did not see the same scans; compare them on the same")
    curves = froc(teacher.scans), froc(student.scans)
    scores = best_scores(teacher.scans), best_scores(student.scans)
    result: dict[str, float] = {
        "num_scans": curves[0].num_scans,
        "num_targets": curves[0].num_targets,
    }
    for who, curve in zip(("teacher", "student"), curves, strict=True):
        result[f"{who}.cpm"] = cpm(curve)
        for rate, name in zip(FP_RATES, RATE_NAMES, strict=True):
            result[f"{who}.sensitivity_at_{name}_fp"] = sensitivity_at(curve, rate)
    result["cpm_loss_points"] = 100 * (result["teacher.cpm"] - result["student.cpm"])
    groups = groups_of(teacher)
    for rate, name in zip(FP_RATES, RATE_NAMES, strict=True):
        key = f"hits_kept_at_{name}_fp"
        hits = [
            {target for target, score in best.items() if score >= threshold_at(curve, rate)}
            for best, curve in zip(scores, curves, strict=True)
        ]
        for group, members in groups.items():
            if group == ALL or name == TABLE_RATE:
                suffix = "" if group == ALL else f".{group}"
                result |= _kept(f"{key}{suffix}", hits[0] & members, hits[1] & members)
        for who, curve in zip(("teacher", "student"), curves, strict=True):
            result[f"{key}.{who}_fp_per_scan"] = _rate_at(curve, threshold_at(curve, rate))
    return result


def _kept(key: str, teacher: set[str], student: set[str]) -> dict[str, float]:
    result: dict[str, float] = {f"{key}.of": len(teacher), f"{key}.gained": len(student - teacher)}
    if teacher:
        kept = Kept(len(teacher & student), len(teacher))
        result |= {key: kept.share, f"{key}.low": kept.low}
    return result


def best_scores(scans: Sequence[ScanResult]) -> dict[str, float]:
    """Included nodule that some finding hits -> the highest such score."""
    return {
        _nodule(scan, name): float(scan.scores[number])
        for scan in scans
        for name, number in match(scan).best.items()
    }


def groups_of(answers: Answers) -> dict[str, set[str]]:
    """Group -> its included nodules: all, each size, each texture."""
    sizes = {
        _nodule(scan, target.name): target.diameter_mm
        for scan in answers.scans
        for target in scan.targets
        if target.is_included
    }
    groups = {ALL: set(sizes)}
    for name, (low, high) in SIZE_BINS.items():
        groups[name] = {nodule for nodule, size in sizes.items() if low <= size < high}
    known = answers.textures
    for texture in sorted({known[nodule] for nodule in sizes if nodule in known}):
        groups[texture] = {nodule for nodule in sizes if known.get(nodule) == texture}
    return groups


def _nodule(scan: ScanResult, name: str) -> str:
    # As `looking` names a nodule's outlines.
    return name if name.startswith(scan.name) else f"{scan.name}/{name}"


def _rate_at(curve: Curve, threshold: float) -> float:
    below = curve.fp_per_scan[curve.thresholds >= threshold]
    return float(below[-1]) if len(below) else 0.0


def _outlines(teacher: Answers, student: Answers) -> dict[str, float]:
    theirs, ours = teacher.outlines, student.outlines
    if [one.name for one in theirs] != [one.name for one in ours]:
        raise ValueError("teacher and student did not outline the same nodules; compare the same")
    names = {ALL: np.ones(len(theirs), bool)}
    diameters = np.array([one.diameter_mm for one in theirs])
    for name, (low, high) in SIZE_BINS.items():
        names[name] = (low <= diameters) & (diameters < high)
    textures = np.array([one.texture or "" for one in theirs])
    names |= {texture: textures == texture for texture in sorted({*textures} - {""})}
    patients = np.array([one.patient for one in theirs])
    dice = {
        "teacher": np.array([one.dice for one in theirs]),
        "student": np.array([one.dice for one in ours]),
    }
    human = np.array([one.human for one in theirs])
    result: dict[str, float] = {}
    for name, chosen in names.items():
        suffix = "" if name == ALL else f".{name}"
        result[f"num_outlines{suffix}"] = int(chosen.sum())
        if not chosen.any():
            continue
        loss = 100 * (dice["teacher"] - dice["student"])[chosen]
        interval = ratio_interval(patients[chosen].tolist(), loss, np.ones(len(loss)))
        result[f"dice_loss_points{suffix}"] = float(loss.mean())
        result[f"dice_loss_points{suffix}.low"] = interval.low
        result[f"dice_loss_points{suffix}.high"] = interval.high
        for who, values in dice.items():
            result[f"{who}.dice_vs_others{suffix}"] = float(values[chosen].mean())
            if human[chosen].any():
                ratio = float(values[chosen].sum() / human[chosen].sum())
                result[f"{who}.human_normalised_dice{suffix}"] = ratio
    return result
