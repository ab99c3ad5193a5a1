"""What fewer bits cost: the kit's own evaluation of the same scans, once for each form.

Dice is that against the consensus of the other readers where the place is told, hits are those at
the same rate of false positives: `kits/medical/retention.py`, with the finer form as teacher.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from benchmarks.medical.study import Item, Study, print_table
from benchmarks.medical.subject import forms, subject
from kits.medical.data.config import PhantomData
from kits.medical.data.load import open_cases
from kits.medical.infer.network import open_network
from kits.medical.looking import Looker, look_at
from kits.medical.retention import Answers, retention_metrics
from kits.medical.trained import read_facts

NUM_SCANS, QUICK_SCANS = 40, 1
# Coarser form, finer form; `exact.py` has both beside float32.
PAIRS = (("int8", "bf16"),)
RATE = "1"
KEYS = {
    "dice": "student.dice_vs_others",
    "human_normalised_dice": "student.human_normalised_dice",
    "dice_loss_points": "dice_loss_points",
    "dice_loss_low": "dice_loss_points.low",
    "dice_loss_high": "dice_loss_points.high",
    "outlines": "num_outlines",
    "hits_kept": f"hits_kept_at_{RATE}_fp",
    "hits": f"hits_kept_at_{RATE}_fp.of",
    "hits_gained": f"hits_kept_at_{RATE}_fp.gained",
    "cpm_loss_points": "cpm_loss_points",
}


def measure(study: Study) -> dict[str, Any]:
    """Phantoms of the test split, which no run has seen."""
    made = subject(study)
    os.environ["DEEPKITS_HOME"] = str(made.home)
    facts = read_facts(made.run)
    cases = open_cases(PhantomData(max_slices=24, pixel_mm=2.0) if study.quick else PhantomData())
    names = cases.names("test")[: QUICK_SCANS if study.quick else NUM_SCANS]
    answers = {}
    for form, (bundle, device) in forms(made).items():
        if not any(form in pair for pair in PAIRS):
            continue
        network = open_network(bundle, study.threads, device)
        looker = Looker(network, int(facts["multiple"]), float(facts["mask_threshold"]))
        study.say(f"{form}: {len(names)} scans")
        answers[form] = Answers.of(look_at(cases, names, looker))
    pairs = {
        f"{coarser} against {finer}": _row(answers[finer], answers[coarser])
        for coarser, finer in PAIRS
        if coarser in answers  # not every network could be made smaller
    }
    return {
        "is_trained": made.is_trained,
        "run": made.run.name,
        "no_int8": made.note,
        "scans": len(names),
        "pairs": pairs,
    }


def _row(finer: Answers, coarser: Answers) -> dict[str, float | None]:
    found = retention_metrics(finer, coarser)
    return {name: round(found[key], 4) if key in found else None for name, key in KEYS.items()}


def show(found: Mapping[str, Any]) -> None:
    """A row for each pair."""
    print_table(
        f"Fewer bits, {found['scans']} scans",
        ("", "Dice", "loss, points", "95 %", "of human", "hits kept", "of", "CPM loss, points"),
        rows(found),
    )


def rows(found: Mapping[str, Any]) -> list[list[object]]:
    """For the table and for the page."""
    return [
        [
            name,
            row["dice"],
            row["dice_loss_points"],
            f"{row['dice_loss_low']} to {row['dice_loss_high']}",
            row["human_normalised_dice"],
            row["hits_kept"],
            row["hits"],
            row["cpm_loss_points"],
        ]
        for name, row in found["pairs"].items()
    ]


ITEM = Item(measure, show)
