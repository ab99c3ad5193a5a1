"""What is kept and lost, on answers written by hand."""

import numpy as np
import pytest
from scipy import stats

from kits.medical.metrics.froc import ScanResult, Target
from kits.medical.retention import Answers, Kept, Outline, retention_metrics

SIZES = {"a": 4.0, "b": 8.0, "c": 20.0}
TEXTURES = {"one/a": "solid", "one/b": "solid", "two/c": "non_solid"}


def scan(name, targets, found):
    """Targets ten millimetres apart along x; found: target (or None, far away) -> score."""
    places = {target: (30.0 * k, 0.0, 0.0) for k, target in enumerate(targets)}
    centres = [places.get(target, (0.0, 900.0 + k, 0.0)) for k, (target, _) in enumerate(found)]
    return ScanResult(
        name,
        f"patient {name}",
        tuple(Target(t, places[t], SIZES[t], is_included=True) for t in targets),
        np.array(centres).reshape(-1, 3),
        np.array([score for _, score in found]),
    )


def outline(name, dice, size):
    return Outline(name, f"patient {name[:3]}", size, TEXTURES.get(name), dice, human=0.5)


def answers(found_one, found_two, dices=(0.8, 0.6, 0.7)):
    scans = (scan("one", "ab", found_one), scan("two", "c", found_two))
    names = zip(("one/a", "one/b", "two/c"), dices, SIZES.values(), strict=True)
    return Answers(scans, tuple(outline(*row) for row in names), TEXTURES)


def test_bound_is_that_of_clopper_and_pearson():
    # All of n kept: the bound solves p ** n = 0.05.
    assert Kept(10, 10).low == pytest.approx(0.05 ** (1 / 10))
    assert Kept(0, 5).low == 0
    low = Kept(90, 100).low
    assert low < 0.9
    assert stats.binom.sf(89, 100, low) == pytest.approx(0.05)


def test_hits_are_compared_at_equal_false_positives():
    teacher = answers([("a", 0.9), ("b", 0.8), (None, 0.7)], [("c", 0.3), (None, 0.6), (None, 0.2)])
    # The student finds c with a high score, and b only behind more false positives.
    student = answers(
        [("a", 0.5), (None, 0.45), (None, 0.4), (None, 0.35), ("b", 0.3)], [("c", 0.55)]
    )
    found = retention_metrics(teacher, student)
    # Below half a false positive per scan: a and b of the teacher, a and c of the student.
    key = "hits_kept_at_1_4th_fp"
    assert (found[key], found[f"{key}.of"], found[f"{key}.gained"]) == (0.5, 2, 1)
    assert found[f"{key}.low"] == pytest.approx(1 - np.sqrt(0.95))
    # At 1: two of the teacher's false positives let c in; the student's two do not let b in.
    key = "hits_kept_at_1_fp"
    assert (found[key], found[f"{key}.of"], found[f"{key}.gained"]) == (2 / 3, 3, 0)
    assert found[f"{key}.teacher_fp_per_scan"] == found[f"{key}.student_fp_per_scan"] == 1
    assert found["hits_kept_at_2_fp"] == 1
    assert found["student.sensitivity_at_1_fp"] == pytest.approx(2 / 3)
    assert found["num_targets"] == 3


def test_hits_are_told_apart_by_size_and_texture():
    teacher = answers([("a", 0.9), ("b", 0.8)], [("c", 0.7)])
    student = answers([("b", 0.8)], [])
    found = retention_metrics(teacher, student)
    groups = {
        name: (found.get(f"hits_kept_at_1_fp.{name}"), found[f"hits_kept_at_1_fp.{name}.of"])
        for name in ("under_6_mm", "6_to_10_mm", "over_10_mm", "solid", "non_solid")
    }
    assert groups == {
        "under_6_mm": (0, 1),
        "6_to_10_mm": (1, 1),
        "over_10_mm": (0, 1),
        "solid": (0.5, 2),
        "non_solid": (0, 1),
    }


def test_a_group_without_hits_has_no_share():
    found = retention_metrics(answers([], [(None, 0.5)]), answers([("a", 0.5)], []))
    assert "hits_kept_at_1_fp" not in found
    assert found["hits_kept_at_1_fp.of"] == 0
    assert found["hits_kept_at_1_fp.gained"] == 1


def test_dice_loss_is_paired_and_in_points():
    teacher, student = answers([], []), answers([], [], dices=(0.7, 0.6, 0.71))
    found = retention_metrics(teacher, student)
    assert found["dice_loss_points"] == pytest.approx((10 + 0 - 1) / 3)
    # Two patients: their means are the extremes of what can be drawn.
    assert found["dice_loss_points.low"] == pytest.approx(-1)
    assert found["dice_loss_points.high"] == pytest.approx(5)
    assert found["dice_loss_points.under_6_mm"] == pytest.approx(10)
    assert found["dice_loss_points.non_solid"] == pytest.approx(-1)
    assert found["student.human_normalised_dice"] == pytest.approx(2.01 / 1.5)
    assert found["num_outlines"] == 3


def test_patches_have_no_hits_and_others_are_refused():
    teacher = answers([], [])
    patches = Answers((), teacher.outlines, {})
    found = retention_metrics(patches, patches)
    assert found["dice_loss_points"] == 0
    assert not any(key.startswith("hits_kept") for key in found)
    with pytest.raises(ValueError, match="did not see the same scans"):
        retention_metrics(teacher, patches)
    with pytest.raises(ValueError, match="did not outline the same nodules"):
        retention_metrics(teacher, Answers(teacher.scans, teacher.outlines[:1], {}))


def test_a_nodule_named_after_its_scan_is_found_in_its_texture():
    # As phantoms call theirs: the outline's name has no scan before it.
    target = Target("one-1", (0.0, 0.0, 0.0), 6.0, is_included=True)
    found = ScanResult("one", "one", (target,), np.zeros((1, 3)), np.array([0.9]))
    shape = Outline("one-1", "one", 6.0, "non_solid", 0.8, human=0.5)
    seen = Answers((found,), (shape,), {"one-1": "non_solid"})
    assert retention_metrics(seen, seen)["hits_kept_at_1_fp.non_solid.of"] == 1
