"""The same detector another way: every tile of every frame, SAHI, and ultralytics' stream loader.

Peers that need torch run as their own processes: `peer_sahi.py`, `peer_streams.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defect.driving import Drive, drive, summarise
from benchmarks.defect.study import Study
from benchmarks.defect.subject import HEIGHT, WIDTH, Subject, changed
from benchmarks.serve.process import QUIET
from benchmarks.serve.study import ROOT, print_table, spread
from core.schedule.model_file import open_model
from kits.defect.line.detect import found_in
from kits.defect.line.detector_file import DetectorFile
from kits.defect.line.merge import merge
from kits.defect.line.recipe import read_recipe
from kits.defect.line.tiling import Grid
from kits.defect.line.verdict import Found

BATCH = 8
# Of the smaller box, what must lie in the other for both to be the same thing.
SAME_SHARE = 0.5
Box = tuple[float, float, float, float]
Seen = list[tuple[str, float, Box]]  # class, score, box


def run_recall(study: Study, subject: Subject) -> dict[str, Any]:
    """What the line finds of what looking everywhere finds, and what each costs."""
    number = min(subject.num_frames, 4 if study.quick else subject.num_frames)
    recipe = changed(subject.recipe, "all", deadline_ms=60_000.0, audit_share=0.0)
    everywhere, seconds = _everywhere(study, subject, recipe, number)
    study.say(f"the line over {number} frames")
    plan = Drive(
        subject.frames, recipe, subject.detector, num_cameras=1, fps=2.0, warm_s=0.0,
        seconds=number / 2.0, workers=1,
    )  # fmt: skip
    driven = drive(plan)
    line: list[Seen] = [
        [(one.kind, one.score, one.box_px) for one in verdict.defects]
        for verdict in driven.verdicts
    ]
    kept = [_kept(whole, found) for whole, found in zip(everywhere, line, strict=True)]
    num_whole = sum(len(whole) for whole in everywhere)
    return {
        "frames": number,
        "is_trained": subject.is_trained,
        "brute_force_defects": num_whole,
        "line_defects": sum(map(len, line)),
        "kept": sum(kept),
        "kept_share": round(sum(kept) / num_whole, 5) if num_whole else None,
        "truth": {
            "defects": sum(map(len, subject.truth[:number])),
            "brute_force_found": _found(subject.truth, everywhere),
            "line_found": _found(subject.truth, line),
        },
        "brute_force_s": spread(seconds),
        "line": summarise(plan, driven),
        "line_cpu_s_per_frame": round(driven.cpu_s / number, 4),
        "sahi": _sahi(study, subject, recipe, 1 if study.quick else 3),
    }


def _everywhere(
    study: Study, subject: Subject, recipe_file: Path, number: int
) -> tuple[list[Seen], list[float]]:
    """Brute force: the merged defects of each frame, and its seconds on one core."""
    recipe, file = read_recipe(recipe_file), DetectorFile.open(subject.detector)
    pipeline = open_model(subject.detector, "", threads=1)
    tiles = Grid(HEIGHT, WIDTH, recipe.tile_px, recipe.halo_px).every()
    frames = np.load(subject.frames, mmap_mode="r")
    found: list[Seen] = []
    seconds = []
    for at in range(number):
        if at % 8 == 0:
            study.say(f"brute force: {len(tiles)} tiles of frame {at + 1} of {number}")
        frame, start = np.array(frames[at]), time.perf_counter()
        parts: list[Found] = []
        for first in range(0, len(tiles), BATCH):
            some = tiles[first : first + BATCH]
            images = [frame[top:bottom, left:right][None] for left, top, right, bottom in some]
            outputs = pipeline.predict({file.given.name: file.given.batch(images)})
            parts += found_in(outputs, file, some)
        merged = merge(parts, (HEIGHT, WIDTH))
        seconds.append(time.perf_counter() - start)
        found.append([(file.name(one.kind), one.score, one.box_px) for one in merged])
    return found, seconds


def _kept(whole: Seen, found: Seen) -> int:
    """How many of the first are among the second, by class and place."""
    return sum(
        any(kind == other and _shared(box, there) >= SAME_SHARE for other, _, there in found)
        for kind, _, box in whole
    )


def _found(truth: Sequence[Sequence[Sequence[float]]], found: Sequence[Seen]) -> int:
    """True defects with a box of any class on them."""
    return sum(
        any(_shared(tuple(box), there) >= SAME_SHARE for _, _, there in seen)
        for boxes, seen in zip(truth, found, strict=False)
        for box in boxes
    )


def _shared(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return max(0.0, width) * max(0.0, height) / max(smaller, 1e-9)


def _sahi(study: Study, subject: Subject, recipe: Path, number: int) -> dict[str, Any]:
    rows = {}
    run = subject.detector.parents[1] if subject.detector.suffix == ".ebundle" else None
    engines = ["file", *(["torch"] if run and (run / "config.yaml").exists() else [])]
    for engine in engines:
        study.say(f"SAHI over {number} frames, {engine}")
        settings = {
            "frames": str(subject.frames),
            "detector": str(subject.detector),
            "run": str(run),
            "engine": engine,
            "number": number,
            "tile_px": read_recipe(recipe).tile_px,
        }
        rows[engine] = _peer("peer_sahi", settings, 3600)
    return rows


def _peer(name: str, settings: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.defect.{name}", json.dumps(settings)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=timeout_s,
        env={**os.environ, **QUIET},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show_recall(found: dict[str, Any]) -> None:
    """For people."""
    truth = found["truth"]
    print_table(
        f"{found['frames']} frames with {truth['defects']} defects: the same detector two ways",
        ("", "defects found", "of the true ones", "CPU s per frame"),
        [
            ("every tile", found["brute_force_defects"], truth["brute_force_found"],
             found["brute_force_s"]["median"]),
            ("the line", found["line_defects"], truth["line_found"],
             found["line_cpu_s_per_frame"]),
            *((f"SAHI, {name}", row["objects"], None, row["cpu_s"]["median"])
              for name, row in found["sahi"].items()),
        ],
    )  # fmt: skip
    print(f"kept of what every tile shows: {found['kept']} of {found['brute_force_defects']}")


def run_streams(study: Study, subject: Subject) -> dict[str, Any]:
    """Eight paced streams through ultralytics' loader: what of them is never seen."""
    seconds = study.seconds or (8.0 if study.quick else 60.0)
    rows = {}
    for name, fps, with_model in (
        ("loader alone", 4.0, False),
        ("with a network", 4.0, True),
        ("with a network", 10.0, True),
    ):
        study.say(f"LoadStreams, 8 streams of {fps:g} fps, {name}, {seconds:g} s")
        settings = {
            "frames": str(subject.frames), "fps": fps, "streams": 8, "seconds": seconds,
            "with_model": with_model,
        }  # fmt: skip
        rows[f"{name}, {fps:g} fps"] = _peer("peer_streams", settings, 10 * seconds + 300)
    return {"seconds": seconds, "runs": rows}


def show_streams(found: dict[str, Any]) -> None:
    """For people."""
    print_table(
        "8 streams of 4K MJPEG over HTTP through ultralytics' LoadStreams",
        ("", "sent", "seen", "never seen", "seen twice", "told of"),
        [
            (name, row["sent"], row["seen"], f"{100 * row['dropped_share']:.1f} %",
             row["repeated"], row["reported"])
            for name, row in found["runs"].items()
        ],
    )  # fmt: skip
