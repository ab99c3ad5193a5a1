"""From DICOM on disk to SEG and SR, and the same network behind peers' sliding windows."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.medical.contenders import CONTENDERS
from benchmarks.medical.resampling import compare_resampling
from benchmarks.medical.study import WORK, Item, Study, fresh, last_json, print_table, spread
from benchmarks.medical.subject import Subject, drop_from_page_cache, scan_folder, subject

OURS, MIRRORED = "deepkits bf16", "nnU-Net, default"
# So that the search of a network that means nothing has as much to do as one can have.
WORST_CASE = {"threshold": 0.0, "candidate_threshold": 0.0, "max_growth": 0}


def measure(study: Study) -> dict[str, Any]:
    """All parts, each round with every contender in turn."""
    made = subject(study)
    scan = scan_folder(study)
    return {
        "network": {
            "run": made.run.name,
            "is_trained": made.is_trained,
            "no_int8": made.note,
            "settings": {} if made.is_trained else WORST_CASE,
        },
        "scan": json.loads((scan / "grid.json").read_text()) | {"folder": scan.name},
        "report": _reports(study, made, scan),
        "same_weights": _same_weights(study, made, scan),
        "resampling": compare_resampling(study),
    }


def _reports(study: Study, made: Subject, scan: Path) -> dict[str, Any]:
    """Each form of the network in turn, round by round."""
    if not made.is_trained:
        study.say("a network of a few steps finds nothing that is written: give --run")
    bundles = {"bf16": made.bundle, "int8": made.int8_bundle}
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(study.rounds):
        for form, bundle in bundles.items():
            if bundle is not None:
                row = _report(study, made, bundle, scan)
                rounds.setdefault(form, []).append(row)
                study.say(f"report, {form}, round {number + 1}: {row['wall_s']:.1f} s")
    return {form: _report_summary(rows) for form, rows in rounds.items()}


def _report(study: Study, made: Subject, bundle: Path, scan: Path) -> dict[str, Any]:
    """`python -m kits.medical.report`, from its start to its end, files read from the disk."""
    output = WORK / "report"
    shutil.rmtree(output, ignore_errors=True)
    drop_from_page_cache(scan / "dicom")
    done = fresh(
        ["-m", "kits.medical.report", f"scan={scan / 'dicom'}", f"run={bundle}",
         f"output={output}", f"threads={study.threads}"],
        made.home, study.threads,
    )  # fmt: skip
    written = sorted(path.name for path in output.iterdir())
    if "sr.dcm" not in written:
        raise RuntimeError(f"the report wrote {written}, no sr.dcm")
    summary = json.loads((output / "findings.json").read_text())
    inside = re.search(r"; ([\d.]+) s$", done.output, re.MULTILINE)
    assert inside, done.output
    steps = {name: float(value) for name, value in summary["seconds"].items()}
    # As precise as the printed number: a tenth.
    until_writing = steps.pop("until_writing")
    steps["measuring"] = until_writing - steps["opening"] - steps["reading"] - steps.pop("total")
    steps["writing"] = float(inside[1]) - until_writing
    steps["start"] = done.wall_s - float(inside[1])
    return {
        "wall_s": done.wall_s,
        "cpu_s": done.cpu_s,
        "rss_mib": done.rss_mib,
        "steps_s": steps,
        "nodules": len(summary["nodules"]),
        "runtime": summary["model"]["runtime"],
        "written": written,
        "written_mb": sum(path.stat().st_size for path in output.iterdir()) / 1e6,
    }


def _report_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    last = rows[-1]
    found: dict[str, Any] = {
        key: spread([row[key] for row in rows]) for key in ("wall_s", "cpu_s", "rss_mib")
    }
    found["steps_s"] = {
        name: spread([row["steps_s"][name] for row in rows]) for name in last["steps_s"]
    }
    return {**found, **{key: last[key] for key in ("nodules", "runtime", "written", "written_mb")}}


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
            # Mirroring is eight times the same: once tells.
            if name == MIRRORED and (number or study.quick):
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
    for form, report in found["report"].items():
        rows = [[key, *report[key].values()] for key in ("wall_s", "cpu_s", "rss_mib")]
        rows += [[name, *step.values()] for name, step in report["steps_s"].items()]
        print_table(f"DICOM on disk to SEG and SR, {form}", ("", "median", "min", "max"), rows)
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
