"""What a scan cannot show follows from its slices and its noise."""

import math

import numpy as np
import pytest

from kits.medical.geometry import Grid, Volume
from kits.medical.results.detectability import noise_hu, not_detectable

AXES = np.eye(3)[::-1]


def tissue(noise, hu=40, shape=(20, 80, 80)):
    random = np.random.default_rng(0)
    voxels = hu + random.normal(0, noise, shape)
    voxels[:, 30:50, 30:50] -= 900  # a lung
    grid = Grid(shape, (1.25, 0.7, 0.7), (0.0, 0.0, 0.0), AXES)
    return Volume(grid, np.round(voxels).astype(np.int16))


@pytest.mark.parametrize("noise", [8.0, 20.0, 45.0])
def test_noise_is_that_of_soft_tissue(noise):
    assert noise_hu(tissue(noise)) == pytest.approx(noise, rel=0.1, abs=1.0)


def test_noise_of_a_scan_without_soft_tissue_is_not_known():
    assert math.isnan(noise_hu(tissue(20.0, hu=-800)))
    told = not_detectable(1.0, 1.0, float("nan"))
    assert any("could not be measured" in line for line in told.lines["en"])


def test_thin_slices_show_from_four_millimetres_on():
    told = not_detectable(1.0, 1.25, 20.0)
    assert (told.smallest_mm, told.thickness_mm) == (4.0, 1.25)
    assert not any("thick" in line for line in told.lines["en"])
    assert len(told.lines["en"]) == len(told.lines["zh"])


def test_thick_slices_hide_what_is_smaller_than_they_are():
    told = not_detectable(3.0, 5.0, 20.0)
    assert told.smallest_mm == 5.0
    assert any("5 mm" in line and "61 of 100" in line for line in told.lines["en"])
    assert any("5 mm" in line and "61 %" in line for line in told.lines["zh"])


def test_slices_farther_apart_than_thick_count_by_their_distance():
    assert not_detectable(6.0, None, 20.0).smallest_mm == 6.0


def test_noise_hides_faint_nodules():
    assert any("hides faint" in line for line in not_detectable(1.0, 1.0, 90.0).lines["en"])
    assert not any("hides faint" in line for line in not_detectable(1.0, 1.0, 30.0).lines["en"])
