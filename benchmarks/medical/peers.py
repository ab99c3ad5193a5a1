"""The same network behind our search and behind peers' sliding windows, from the array on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.medical.contenders import CONTENDERS
from benchmarks.medical.resampling import compare_resampling
from benchmarks.medical.study import WORK, Item, Study, fresh, last_json, print_table, spread
from benchmarks.medical.subject import Subject, scan_folder, subject

OURS, MIRRORED = "deepkits bf16", "nnU-Net, default"
# Minutes each, and the same every time: fewer rounds tell enough.
MOST_ROUNDS = {
    "deepkits, ONNX Runtime fp32": 1,
    "deepkits, ONNX Runtime int8": 1,
    "MONAI, default": 2,
    "nnU-Net, no mirroring": 2,
    MIRRORED: 1,
}
# So that the search of a network that means nothing has as much to do as one can have.
WORST_CASE = {"threshold": 0.0, "candidate_threshold": 0.0, "max_growth": 0}


def measure(study: Study) -> dict[str, Any]:
    """All parts, each round with every contender in turn."""
    made = subject(study)
    scan = scan_folder(study)
    return {
        "is_trained": made.is_trained,
        "run": made.run.name,
        "no_int8": made.note,
        "settings": {} if made.is_trained else WORST_CASE,
        "same_weights": _same_weights(study, made, scan),
        "resampling": compare_resampling(study),
    }


def _same_weights(study: Study, made: Subject, scan: Path) -> dict[str, Any]:
    plan = WORK / "plan.json"
    plan.write_text(
        json.dumps(
            {
                "run": str(made.run),
                "bundle": str(made.bundle),
                "int8_bundle": str(made.int8_bundle) if made.int8_bundle else None,
                "scan": str(scan),
                "threads": study.threads,
                "settings": {} if made.is_trained else WORST_CASE,
            }
        )
    )
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(study.rounds):
        for name in CONTENDERS:
            if "int8" in name and made.int8_bundle is None:
                continue
            if number >= MOST_ROUNDS.get(name, study.rounds):
                continue
            if name == MIRRORED and study.quick:
                continue
            done = fresh(
                ["-m", "benchmarks.medical.contenders", name, str(plan)], made.home, study.threads
            )
            row = last_json(done.output)
            rounds.setdefault(name, []).append(row)
            study.say(f"{name}: {row['wall_s']:.1f} s, {row['cpu_s']:.1f} CPU s")
    return {name: _summary(name, rounds) for name in rounds}


def _summary(name: str, rounds: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rows, ours = rounds[name], rounds[OURS]
    keys = ("wall_s", "cpu_s", "open_s", "rss_mib")
    found: dict[str, Any] = {key: spread([row[key] for row in rows]) for key in keys}
    # Ratios of the rounds: what was disturbed was so for both.
    found["times_ours"] = spread(
        [a["wall_s"] / b["wall_s"] for a, b in zip(rows, ours, strict=False)]
    )
    found["cpu_times_ours"] = spread(
        [a["cpu_s"] / b["cpu_s"] for a, b in zip(rows, ours, strict=False)]
    )
    found["last"] = {k: v for k, v in rows[-1].items() if k not in keys}
    return found


def show(found: Mapping[str, Any]) -> None:
    """The tables."""
    rows = [
        [
            name,
            row["wall_s"]["median"],
            row["cpu_s"]["median"],
            round(row["rss_mib"]["median"]),
            row["times_ours"]["median"],
            f"{row['times_ours']['min']}–{row['times_ours']['max']}",
            row["cpu_times_ours"]["median"],
        ]
        for name, row in found["same_weights"].items()
    ]
    columns = ("the same weights", "s", "CPU s", "MiB", "× ours", "spread", "× CPU")
    print_table("From the array to the result", columns, rows)
    rows = [[n, r["wall_s"]["median"], r["max_error_hu"]] for n, r in found["resampling"].items()]
    print_table("Thick slices to twice as many", ("", "s", "largest difference, HU"), rows)


ITEM = Item(measure, show)
