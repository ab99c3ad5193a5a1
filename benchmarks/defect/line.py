"""The line alone: eight 4K cameras on this machine's cores, and one region as fast as it goes."""

from __future__ import annotations

from typing import Any

from benchmarks.defect.driving import Drive, drive, quantiles, summarise
from benchmarks.defect.study import Study
from benchmarks.defect.subject import Subject, changed, region
from benchmarks.serve.study import print_table

REACH = {"fps": 4.0, "p99_ms": 500.0}
STRETCH = {"fps": 10.0, "p99_ms": 250.0}
REGION_REACH, REGION_STRETCH = {"p50": 10.0, "p99.9": 20.0}, {"p50": 6.0, "p99.9": 12.0}
REGION_FPS = 20.0


def run_cameras(study: Study, subject: Subject) -> dict[str, Any]:
    """Eight 4K cameras from memory, at the pace of the goals."""
    seconds = study.seconds or (20.0 if study.quick else 600.0)
    rows = {}
    for name, goal, lasting in (("reach", REACH, seconds), ("stretch", STRETCH, seconds / 5)):
        recipe = changed(subject.recipe, name, deadline_ms=goal["p99_ms"])
        plan = Drive(subject.frames, recipe, subject.detector, fps=goal["fps"], seconds=lasting)
        study.say(f"8 x 4K at {goal['fps']:g} fps each, {lasting:g} s")
        rows[name] = {"goal": goal, **summarise(plan, drive(plan))}
    return {"seconds": seconds, "is_trained": subject.is_trained, "runs": rows}


def show_cameras(found: dict[str, Any]) -> None:
    """For people."""
    columns = ("run", "seconds", "fps asked", "inspected", "triggers", "UNINSPECTED", "unaccounted",
               "p50 ms", "p99 ms", "goal", "cores", "tiles")  # fmt: skip
    print_table(
        "8 x 3840 x 2160 mono8 from memory",
        columns,
        [
            (
                *(name, row["seconds"], row["asked_fps"], row["inspected_fps"], row["triggers"]),
                *(row["states"].get("UNINSPECTED", 0), row["unaccounted"]),
                *(row["latency_ms"]["p50"], row["latency_ms"]["p99"], row["goal"]["p99_ms"]),
                *(row["cores_used"], row["tiles_per_part"]),
            )
            for name, row in found["runs"].items()
        ],
    )


def run_region(study: Study, subject: Subject) -> dict[str, Any]:
    """One camera, one region of 640 px, one part at a time."""
    seconds = study.seconds or (15.0 if study.quick else 300.0)
    frames, recipe = region(subject)
    recipe = changed(recipe, "alone", deadline_ms=100.0, audit_share=0.0)
    rows = {}
    for sync in ("normal", "full"):
        plan = Drive(
            frames, recipe, subject.detector, num_cameras=1, fps=REGION_FPS, seconds=seconds,
            workers=1, settings={"ledger_sync": sync},
        )  # fmt: skip
        study.say(f"one region of 640 px, {REGION_FPS:g} a second, {seconds:g} s, ledger {sync}")
        driven = drive(plan)
        rows[sync] = {"ledger_sync": sync, **summarise(plan, driven)}
        seen = [one.times_ms["decided"] - one.times_ms["captured"] for one in driven.verdicts
                if one.state != "UNINSPECTED"]  # fmt: skip
        rows[sync]["from_memory_ms"] = quantiles(seen)
    return {"goal": REGION_REACH, "stretch": REGION_STRETCH, "runs": rows,
            "is_trained": subject.is_trained}  # fmt: skip


def show_region(found: dict[str, Any]) -> None:
    """For people."""
    print_table(
        "One region of 640 x 640 px: trigger to verdict, frame in memory",
        ("ledger", "parts", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "tiles", "UNINSPECTED"),
        [
            (
                name,
                sum(row["states"].values()),
                *(row["latency_ms"][key] for key in ("p50", "p99", "p99.9", "max")),
                row["tiles_per_part"],
                row["states"].get("UNINSPECTED", 0),
            )
            for name, row in found["runs"].items()
        ],
    )
