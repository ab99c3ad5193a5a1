"""The learn verb's work: images from a folder, a recipe into a file, words for a person."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.schedule.model_file import hash_model
from kits.defect.calibration import Calibration, calibrate
from kits.defect.learn_config import LearnConfig
from kits.defect.learning import LearnSettings, learn_recipe
from kits.defect.line.recipe import write_recipe
from kits.defect.line.sources.folder import SUFFIXES, list_images, read_grey
from kits.defect.optics_plan import plan_for, plan_optics

REFUSED = 3


def learn_from_files(cfg: LearnConfig) -> int:
    """Learn a recipe.

    Returns:
        0, or 3 if the set-up cannot see its smallest defect; nothing is written then.

    Raises:
        ValueError: images, target or output do not do.
    """
    start_s = time.perf_counter()
    output = Path(cfg.output)
    if output.exists():
        raise ValueError(f"output={cfg.output} is there already; name another, or remove it")
    found = _calibration(cfg)
    mm_per_px = cfg.mm_per_px if found is None else found.mm_per_px
    assert mm_per_px is not None  # LearnConfig has checked it
    frames = _read_frames(cfg)
    height, width = next(iter(frames.values())).shape
    report = plan_optics(
        plan_for(
            mm_per_px=mm_per_px,
            width_px=width,
            height_px=height,
            defect_mm=cfg.smallest_defect_mm,
            length_mm=cfg.smallest_length_mm or 0.0,
        )
    )
    if report.refusals:
        for refusal in report.refusals:
            print(f"refused: {refusal}", file=sys.stderr)
        return REFUSED
    learned = learn_recipe(
        frames,
        LearnSettings(cfg.product, mm_per_px, cfg.smallest_defect_mm, cfg.flagged_share),
    )
    notes = dict(learned.notes)
    notes["cannot_promise"] = [*notes["cannot_promise"], *report.warnings]
    notes["optics"] = {"defect_px": report.defect_px, "detection": report.detection}
    if found is not None:
        notes["calibration"] = {"steps_px": found.steps_px, "turn_deg": found.turn_deg}
    recipe = replace(
        learned,
        deadline_ms=cfg.deadline_ms,
        tile_px=cfg.tile_px,
        halo_px=cfg.halo_px,
        audit_share=cfg.audit_share,
        detector_sha256=hash_model(Path(cfg.detector)) if cfg.detector else None,
        notes=notes,
    )
    write_recipe(recipe, output)
    took_s = time.perf_counter() - start_s
    print(
        f"{output}: {len(frames)} good parts of {width} x {height} px, {mm_per_px:.5f} mm a pixel; "
        f"{notes['flagged']['any']:.2%} of their cells flagged ({took_s:.0f} s)"
    )
    for promise in notes["cannot_promise"]:
        print(f"cannot promise: {promise}")
    return 0


def _read_frames(cfg: LearnConfig) -> dict[str, np.ndarray]:
    folder = Path(cfg.images)
    if not folder.is_dir():
        raise ValueError(f"images={cfg.images} is not a folder; set images")
    files = list_images(folder)
    if not files:
        raise ValueError(f"images={cfg.images} has no image ({', '.join(SUFFIXES)}); set images")
    return {file.name: read_grey(file) for file in files}


def _calibration(cfg: LearnConfig) -> Calibration | None:
    if cfg.target is None or cfg.target_pitch_mm is None:
        return None
    return calibrate(read_grey(Path(cfg.target)), cfg.target_kind, cfg.target_pitch_mm)
