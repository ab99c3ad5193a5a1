"""The model's Dice over the human's, judged by the same references: never a bare Dice.

For each nodule and each of its readers, the reference is the consensus of the OTHER readers. The
reader's Dice against it is the human's, the model's against the same reference the model's; both
are averaged over readers, then over nodules. `human_normalised_dice` is the ratio of the two means,
so that a nodule on which no two readers agree cannot blow it up. Above 1, the model agrees with a
reader's colleagues better than he does. A missed nodule has an empty mask, which scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kits.medical.metrics.bootstrap import Interval, ratio_interval
from kits.medical.metrics.dice import (
    CONVENTIONS,
    Overlaps,
    consensus_of_others,
    dice_of,
    pooled_vs_others,
)
from kits.medical.metrics.oracle import best_mask_dice

# Equivalent diameter of the consensus of all readers: name -> from, below (mm).
SIZE_BINS: Mapping[str, tuple[float, float]] = {
    "under_6_mm": (0, 6),
    "6_to_10_mm": (6, 10),
    "over_10_mm": (10, np.inf),
}


@dataclass(frozen=True)
class Outlines:
    """One nodule as its readers and a model drew it."""

    name: str
    patient: str
    diameter_mm: float
    readers: np.ndarray  # (R, D, H, W) bool: those with a voxel or more, two or more of them
    model: np.ndarray  # (D, H, W) bool
    texture: str | None = None
    # Masks of simple methods, to judge the model's numbers by.
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """One nodule's numbers."""

    name: str
    patient: str
    diameter_mm: float
    texture: str | None
    model: Mapping[str, float]  # convention -> mean Dice over readers
    human: Mapping[str, float]
    oracle: float  # of the best mask, against the others' consensus
    baselines: Mapping[str, float]
    pooled: tuple[Overlaps, Overlaps]  # model, human; against the others' consensus


def agree(outlines: Outlines) -> Agreement:
    """Compare one nodule's masks in every convention."""
    readers, model = outlines.readers, outlines.model
    if len(readers) < 2 or not readers.any((1, 2, 3)).all():
        raise ValueError(f"{outlines.name} has fewer than two readers with a mask; leave it out")
    found = {
        name: (scored(readers, model), scored(readers, None))
        for name, scored in CONVENTIONS.items()
    }
    vs_others = CONVENTIONS["vs_others"]
    return Agreement(
        outlines.name,
        outlines.patient,
        outlines.diameter_mm,
        outlines.texture,
        model={name: float(dice_of(mine).mean()) for name, (mine, _) in found.items()},
        human={name: float(dice_of(theirs).mean()) for name, (_, theirs) in found.items()},
        oracle=best_mask_dice(consensus_of_others(readers)),
        baselines={
            name: float(dice_of(vs_others(readers, mask)).mean())
            for name, mask in outlines.baselines.items()
        },
        pooled=found["vs_others"],
    )


def human_normalised(agreements: Sequence[Agreement]) -> dict[str, float]:
    """Flat keys: the ratio, both its parts, intervals, size bins, textures, other conventions.

    Args:
        agreements: one or more nodules.
    Returns:
        `dice_vs_others`, `human_dice_vs_others`, `human_normalised_dice`, `oracle_normalised_dice`
        and `baseline_<name>_normalised_dice`, each alone and with `.under_6_mm`, `.6_to_10_mm`,
        `.over_10_mm` and `.<texture>` where there are such nodules, the first three with `.low` and
        `.high` (95 %, by patient); `num_nodules`, `num_patients` likewise.
    """
    if not agreements:
        raise ValueError("there is no nodule with two readers; a human's Dice needs two")
    result = _group(agreements, "")
    for name, (low, high) in SIZE_BINS.items():
        result |= _group([a for a in agreements if low <= a.diameter_mm < high], f".{name}")
    for texture in sorted({a.texture for a in agreements if a.texture}):
        result |= _group([a for a in agreements if a.texture == texture], f".{texture}")
    ratios = [
        result[f"human_normalised_dice.{name}"]
        for name in SIZE_BINS
        if f"human_normalised_dice.{name}" in result
    ]
    result["human_normalised_dice.worst_size_bin"] = min(ratios)
    return result | _other_conventions(agreements)


def _group(agreements: Sequence[Agreement], suffix: str) -> dict[str, float]:
    if not agreements:
        return {f"num_nodules{suffix}": 0, f"num_patients{suffix}": 0}
    patients = [a.patient for a in agreements]
    model = np.array([a.model["vs_others"] for a in agreements])
    human = np.array([a.human["vs_others"] for a in agreements])
    ones = np.ones(len(agreements))
    result = {
        f"num_nodules{suffix}": len(agreements),
        f"num_patients{suffix}": len(set(patients)),
    }
    for key, above, below in (
        ("dice_vs_others", model, ones),
        ("human_dice_vs_others", human, ones),
        ("human_normalised_dice", model, human),
    ):
        if below.any():
            interval: Interval = ratio_interval(patients, above, below)
            result[f"{key}{suffix}"] = float(above.sum() / below.sum())
            result[f"{key}{suffix}.low"] = interval.low
            result[f"{key}{suffix}.high"] = interval.high
    if human.any():
        oracle = np.array([a.oracle for a in agreements])
        result[f"oracle_normalised_dice{suffix}"] = float(oracle.sum() / human.sum())
        for name in agreements[0].baselines:
            values = np.array([a.baselines[name] for a in agreements])
            result[f"baseline_{name}_normalised_dice{suffix}"] = float(values.sum() / human.sum())
    return result


def _other_conventions(agreements: Sequence[Agreement]) -> dict[str, float]:
    result = {}
    for name in CONVENTIONS:
        if name != "vs_others":
            result[f"dice_{name}"] = float(np.mean([a.model[name] for a in agreements]))
            result[f"human_dice_{name}"] = float(np.mean([a.human[name] for a in agreements]))
    result["dice_pooled_vs_others"] = pooled_vs_others([a.pooled[0] for a in agreements])
    result["human_dice_pooled_vs_others"] = pooled_vs_others([a.pooled[1] for a in agreements])
    return result
