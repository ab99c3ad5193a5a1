"""What the scratches item counts, on parts whose fate is written down here."""

import math

import numpy as np

from benchmarks.defect.page import write_page
from benchmarks.defect.scratches import (
    Looked,
    choose_threshold,
    rows_of,
    show_scratches,
    summarise,
    table_rows,
)
from benchmarks.defect.study import write_part
from kits.defect.data.image_set import LabelledImage
from kits.defect.line.verdict import Found

TILE = (0, 0, 320, 320)


def part(*found, cells=(), ends=(), refused=""):
    """A part of 640 px with level scratches from (20, y) to (100, y), and what was found on it."""
    segments = np.array([((20, y), (100, y)) for y in ends], np.float32).reshape(-1, 2, 2)
    number = len(segments)
    truth = LabelledImage(
        "part",
        np.zeros((0, 640), np.uint8),
        np.concatenate([segments[:, 0] - 2, segments[:, 1] + 2], 1),
        np.zeros(number, np.int64),
        lengths_mm=np.full(number, 6.25, np.float32),
        widths_mm=np.full(number, 0.2, np.float32),
        segments_px=segments,
        contrasts_to_noise=np.full(number, 3.5, np.float32),
    )
    flagged = np.zeros((10, 10), bool)
    for cell in cells:
        flagged[cell] = True
    boxes = tuple(Found(box, score, 0, TILE) for box, score in found)
    return Looked(truth, flagged, boxes, len(boxes), refused)


def test_the_threshold_rejects_what_proves_a_hundredth():
    worst = [0.1] * 297 + [0.7, 0.8, 0.9]
    assert 0.9 < choose_threshold(worst) < 0.9001
    # One of 500 proves it, too; a part that is not inspected is rejected whatever the threshold.
    assert 0.9 < choose_threshold([math.inf, *worst, *[0.1] * 200]) < 0.9001
    assert choose_threshold([0.0, 0.0]) == 0.05


def test_each_stage_says_what_it_showed():
    on, off = (20.0, 28.0, 100.0, 32.0), (300.0, 300.0, 310.0, 310.0)
    one = part((on, 0.4), (off, 0.9), cells=[(0, 0)], ends=(30, 200))
    for threshold, is_found in ((0.3, True), (0.5, False)):
        stages = rows_of([one], threshold).stages
        assert stages["triage"].tolist() == [True, False]
        assert stages["any score"].tolist() == [True, False]
        assert stages["detector"].tolist() == [is_found, False]
        assert stages["verdict"].tolist() == [is_found, False]


def test_parts_that_are_not_inspected_are_rejected_and_show_nothing(tmp_path, capsys):
    box = (20.0, 28.0, 100.0, 32.0)
    kinds = {
        "validation": [part() for _ in range(3)],
        "clean": [part(), part((box, 0.6)), part(refused="no part")],
        "scratched": [part((box, 0.6), cells=[(0, 0)], ends=(30,)), part(ends=(30,))],
        "widths": [part(ends=(30,))],
        "clean, every tile": [part()],
        "scratched, every tile": [part((box, 0.6), ends=(30,))],
    }
    found = summarise({"painted": kinds})
    assert found["false_reject"]["all"]["rejected"] == 2
    assert found["false_reject"]["all"]["uninspected"] == 1
    assert found["scratches"]["all"]["verdict"] == 0.5
    assert found["clear_scratches"]["painted"]["missed"] == 1
    assert {row[0] for row in table_rows(found)} >= {"all", "painted"}
    whole = {"goal": 0.98, "stretch": 0.992, "fov_mm": 300.0, "width_mm": 0.2, **found}
    whole |= {"cpu_s": {"triage": 0.1}, "whole_cpu_s": 1.0}
    show_scratches(whole)
    assert "2 of 3" in capsys.readouterr().out
    write_part("scratches", whole, tmp_path / "defect.json", quick=False)
    assert "0.2 mm at a field of view" in write_page(tmp_path / "defect.json").read_text()
