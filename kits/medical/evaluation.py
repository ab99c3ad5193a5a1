"""A run's numbers on the cases of a data source: metrics.json and report.html.

Training ends with the same `evaluate_run`. Flat keys of metrics.json:

    human_normalised_dice, dice_vs_others, human_dice_vs_others    metrics/human_normalised.py
    ... .under_6_mm, .6_to_10_mm, .over_10_mm, .solid, ...  .low, .high
    dice_<convention>, human_dice_<convention>                      metrics/dice.py
    volume_error_percent, human_volume_error_percent, ...           metrics/volumes.py
    cpm, sensitivity_at_<rate>_fp, threshold_at_<rate>_fp           metrics/froc.py; scans only
    conformal_<alpha>_percent.miss_rate, .fp_per_scan, ...          metrics/conformal.py; scans only
    found.<key>       as without "found.", of what the model found by itself at 1 FP/scan; a missed
                      nodule has Dice 0
    found_only.<key>  the same of the found ones alone
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.kit import Split
from core.train.run import write_atomic
from kits.medical.answers_file import question, write_answers
from kits.medical.data.case import Cases
from kits.medical.looking import (
    Drawn,
    Looker,
    Seen,
    consensus_volume_mm3,
    look_at,
    reader_volumes_mm3,
)
from kits.medical.metrics.bootstrap import ratio_interval
from kits.medical.metrics.conformal import by_patient, conformal_metrics
from kits.medical.metrics.dice import consensus_of, dice
from kits.medical.metrics.froc import Curve, froc, froc_metrics, threshold_at
from kits.medical.metrics.human_normalised import (
    SIZE_BINS,
    Agreement,
    agree,
    human_normalised,
)
from kits.medical.metrics.volumes import Volumes, volume_metrics
from kits.medical.retention import Answers
from kits.medical.stages import Told, tell_nobody

METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ALPHAS = (0.05, 0.1)
FOUND_RATE = 1.0  # FP/scan at which masks of what was found are judged


@dataclass(frozen=True)
class Evaluation:
    """All that a report shows."""

    metrics: dict[str, Any]
    seen: Seen
    agreements: tuple[Agreement, ...]  # in the order of those of seen.drawn with two readers
    curve: Curve | None  # None for patches


def evaluate_run(
    run: Path,
    cases: Cases,
    split: str = "test",
    output: Path | None = None,
    *,
    is_mirrored: bool = True,
    told: Told = tell_nobody,
) -> dict[str, Any]:
    """Compute metrics.json and report.html of a run, and keep its answers.

    Args:
        run: folder of a finished training run.
        cases: the data.
        split: train, validation, test or all.
        output: where the files go; None: the run's folder.
        is_mirrored: patches are looked at in four mirror images; see `Looker`.
        told: hears of each case before it is looked at.

    Returns:
        the content of metrics.json.

    Raises:
        ValueError: the run is not finished, or the split is empty.
    """
    from kits.medical.evaluation_report import write_report
    from kits.medical.trained import load_run_network, read_facts

    facts = read_facts(run)
    names = names_of(cases, split)
    looker = Looker(
        load_run_network(run),
        int(facts["multiple"]),
        float(facts["mask_threshold"]),
        tuple(facts.get("sample", Looker.sample)),
        is_mirrored=is_mirrored,
    )
    seen = look_at(cases, names, looker, told)
    found = assess(seen)
    about = {"data": cases.name, "data_sha256": cases.fingerprint, "split": split}
    about |= {"num_cases": seen.num_cases, "is_phantom": seen.is_phantom}
    about |= {"is_same_data_as_training": facts.get("data_sha256") == cases.fingerprint}
    metrics = {**about, **found.metrics}
    folder = output or run
    folder.mkdir(parents=True, exist_ok=True)
    write_answers(folder, Answers.of(seen), asked_of(run, cases, split, is_mirrored=is_mirrored))
    write_atomic(folder / METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    write_report(folder / REPORT_FILE, replace(found, metrics=metrics), run, facts)
    return metrics


def asked_of(run: Path, cases: Cases, split: str, *, is_mirrored: bool) -> dict[str, Any]:
    """Which question the answers of an evaluation belong to."""
    from kits.medical.trained import FACTS

    # Holds the validation numbers, so that another training has another.
    network = hashlib.sha256((run / FACTS).read_bytes()).hexdigest()
    return question(
        data_sha256=cases.fingerprint, split=split, network=network, is_mirrored=is_mirrored
    )


def names_of(cases: Cases, split: str) -> list[str]:
    """The cases of a split, or of all.

    Raises:
        ValueError: there is no such split, or it is empty.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}, all; set split")
    chosen = SPLITS if split == "all" else (split,)
    names = [name for each in chosen for name in cases.names(each)]  # type: ignore[arg-type]
    if not names:
        raise ValueError(
            f"split={split} of data={cases.name} has no cases; set split=all where no patient of "
            "this data was seen in training"
        )
    return names


def assess(seen: Seen) -> Evaluation:
    """All numbers of what was seen.

    Raises:
        ValueError: there is nothing to measure.
    """
    if not seen.drawn and not seen.scans:
        raise ValueError("the cases hold no nodule with a mask; choose other data")
    metrics: dict[str, Any] = {"num_excluded_nodules": seen.num_excluded}
    shared = [one for one in seen.drawn if len(one.outlines.readers) > 1]
    agreements = tuple(agree(one.outlines) for one in shared)
    if agreements:
        metrics |= human_normalised(agreements)
    if len(shared) < len(seen.drawn):
        metrics |= one_reader([one for one in seen.drawn if len(one.outlines.readers) == 1])
    if seen.drawn:
        metrics |= volume_metrics([_volumes(one) for one in seen.drawn])
        metrics |= _textures(seen.drawn)
    curve = None
    if any(target.is_included for scan in seen.scans for target in scan.targets):
        curve = froc(seen.scans)
        metrics |= froc_metrics(seen.scans)
        patients = by_patient(seen.scans)
        for alpha in ALPHAS:
            metrics |= conformal_metrics(patients, alpha)
        metrics |= _found(shared, threshold_at(curve, FOUND_RATE))
    return Evaluation(metrics, seen, agreements, curve)


def one_reader(drawn: Sequence[Drawn]) -> dict[str, float]:
    """Dice where only one reader drew: what humans reach there is not known.

    Flat keys: `dice_vs_one_reader` with `.low`, `.high`, also for each size.
    """
    values = np.array(
        [dice(one.outlines.model, consensus_of(one.outlines.readers)) for one in drawn]
    )
    patients = np.array([one.outlines.patient for one in drawn])
    sizes = np.array([one.outlines.diameter_mm for one in drawn])
    result: dict[str, float] = {}
    for name, (low, high) in {"": (0.0, np.inf), **SIZE_BINS}.items():
        chosen = (low <= sizes) & (sizes < high)
        key = f"dice_vs_one_reader{'.' * bool(name)}{name}"
        if chosen.any():
            interval = ratio_interval(
                patients[chosen].tolist(), values[chosen], np.ones(int(chosen.sum()))
            )
            result |= {key: float(values[chosen].mean())}
            result |= {f"{key}.low": interval.low, f"{key}.high": interval.high}
    return result


def _found(shared: Sequence[Drawn], threshold: float) -> dict[str, float]:
    """Masks of what the model found by itself, missed nodules as 0 and left out."""
    every, hits = [], []
    for one in shared:
        is_hit = one.found is not None and one.found_score >= threshold
        mask = one.found if is_hit and one.found is not None else np.zeros_like(one.outlines.model)
        agreement = agree(replace(one.outlines, model=mask, baselines={}))
        every.append(agreement)
        if is_hit:
            hits.append(agreement)
    wanted = ("dice_vs_others", "human_dice_vs_others", "human_normalised_dice", "num_nodules")
    result = {}
    for prefix, agreements in (("found", every), ("found_only", hits)):
        if agreements:
            numbers = human_normalised(agreements)
            result |= {
                f"{prefix}.{key}": value
                for key, value in numbers.items()
                if key.split(".")[0] in wanted
            }
    return result


def _volumes(one: Drawn) -> Volumes:
    return Volumes(
        one.outlines.patient,
        float(one.outlines.model.sum() * one.voxel_mm3),
        consensus_volume_mm3(one),
        reader_volumes_mm3(one),
    )


def _textures(drawn: Sequence[Drawn]) -> dict[str, float]:
    """Share of right textures, and the mean of the textures' shares, where both sides say one."""
    asked = [(one.outlines.texture, one.texture_seen) for one in drawn if one.texture_seen]
    if not asked:
        return {}
    kinds = sorted({str(true) for true, _ in asked})
    shares = {
        kind: float(np.mean([seen == kind for true, seen in asked if true == kind]))
        for kind in kinds
    }
    result = {"texture_accuracy": float(np.mean([true == seen for true, seen in asked]))}
    result["texture_balanced_accuracy"] = float(np.mean(list(shares.values())))
    return result | {f"texture_recall.{kind}": share for kind, share in shares.items()}
