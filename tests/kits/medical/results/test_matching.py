"""Pairs of nodules: only those that nobody could make otherwise."""

import numpy as np
import pytest

from kits.medical.geometry import Grid
from kits.medical.results.matching import Box, earlier_only, lung_box, match

BOX = Box((-120.0, -90.0, -300.0), (120.0, 90.0, -50.0))
NOW = np.array([[-60.0, 10.0, -200.0], [50.0, -20.0, -120.0], [70.0, 30.0, -250.0]])


def moved(box, shift=(0.0, 0.0, 0.0), scale=1.0):
    low, high = (np.array(end) for end in (box.low_mm, box.high_mm))
    return Box(tuple(low + shift), tuple(low + shift + scale * (high - low)))


def test_the_same_places_are_the_same_nodules():
    found = match(NOW, NOW[[2, 0, 1]], (BOX, BOX))
    assert found.places == (1, 2, 0)
    assert found.reasons == ("matched",) * 3


@pytest.mark.parametrize("scale", [1.0, 0.9, 1.15])
def test_a_patient_who_lies_and_breathes_differently_is_followed(scale):
    shift = np.array([20.0, -35.0, 400.0])
    box = moved(BOX, shift, scale)
    before = (NOW - BOX.low_mm) * scale + BOX.low_mm + shift
    found = match(NOW, before + np.random.default_rng(0).normal(0, 2, before.shape), (BOX, box))
    assert found.places == (0, 1, 2)


def test_a_nodule_that_was_not_there_is_new():
    found = match(NOW, NOW[:2], (BOX, BOX))
    assert found.places == (0, 1, None)
    assert found.reasons[2] == "new"


def test_a_new_nodule_beside_an_old_one_is_new():
    beside = NOW[:1] + np.array([[10.0, 0.0, 0.0]])
    found = match(np.concatenate([beside, NOW[:1]]), NOW[:1], (BOX, BOX))
    assert found.places == (None, 0)
    assert found.reasons == ("new", "matched")


def test_two_that_would_do_are_refused():
    before = NOW[:1] + np.array([[5.0, 0.0, 0.0], [-4.0, 0.0, 0.0]])
    found = match(NOW[:1], before, (BOX, BOX))
    assert found.places == (None,)
    assert found.reasons == ("ambiguous",)


def test_two_of_today_for_one_of_then_are_refused():
    now = NOW[:1] + np.array([[5.0, 0.0, 0.0], [-4.0, 0.0, 0.0]])
    assert match(now, NOW[:1], (BOX, BOX)).reasons == ("ambiguous", "ambiguous")


def test_no_earlier_nodule_has_two_partners():
    random = np.random.default_rng(1)
    for _ in range(50):
        now, before = (random.uniform(BOX.low_mm, BOX.high_mm, (20, 3)) for _ in range(2))
        places = [place for place in match(now, before, (BOX, BOX)).places if place is not None]
        assert len(set(places)) == len(places)


def test_lungs_of_another_extent_are_not_compared():
    found = match(NOW, NOW, (BOX, moved(BOX, scale=1.4)))
    assert found.reasons == ("boxes",) * 3
    assert found.places == (None,) * 3


def test_a_place_outside_of_the_lungs_is_not_called_new():
    outside = np.array([[0.0, 0.0, 20.0]])
    assert match(outside, NOW, (BOX, BOX)).reasons == ("not_covered",)


def test_scans_without_nodules():
    empty = np.zeros((0, 3))
    assert match(empty, NOW, (BOX, BOX)).places == ()
    assert match(NOW, empty, (BOX, BOX)).reasons == ("new",) * 3
    assert earlier_only((None, 1), 3) == (0, 2)


def test_the_box_of_a_window_is_that_of_its_voxels_faces():
    axes = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    grid = Grid((10, 10, 10), (2.0, 1.0, 0.5), (100.0, 0.0, 0.0), axes)
    box = lung_box(grid, (slice(1, 4), slice(0, 10), slice(2, 4)))
    assert box.low_mm == pytest.approx((98.25, -0.5, 1.0))
    assert box.high_mm == pytest.approx((99.25, 9.5, 7.0))
