"""Voxels have places, and places voxels."""

import numpy as np
import pytest

from kits.medical.geometry import Grid, Volume

AXES = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
GRID = Grid((4, 5, 6), (2.0, 0.5, 0.25), (-10.0, 20.0, -30.0), AXES)


def test_an_index_grows_along_its_axis_by_its_spacing():
    np.testing.assert_array_equal(GRID.to_patient(np.array([0, 0, 0])), (-10, 20, -30))
    np.testing.assert_array_equal(GRID.to_patient(np.array([1, 2, 4])), (-9, 21, -28))
    assert GRID.voxel_mm3 == 0.25


def test_places_and_indices_are_inverse_in_a_turned_grid():
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    grid = Grid((4, 5, 6), (2.0, 0.5, 0.25), (1.0, 2.0, 3.0), turn)
    indices = np.random.default_rng(1).uniform(-3, 9, (7, 3))
    np.testing.assert_allclose(grid.to_index(grid.to_patient(indices)), indices, atol=1e-12)


def test_a_crop_stays_where_it_was():
    window = slice(1, 3), slice(2, 5), slice(0, 6)
    part = Volume(GRID, np.arange(120, dtype=np.int16).reshape(4, 5, 6)).crop(window)
    assert part.grid.shape == part.voxels.shape == (2, 3, 6)
    np.testing.assert_array_equal(part.grid.origin_mm, GRID.to_patient(np.array([1, 2, 0])))
    assert part.voxels[0, 0, 0] == 42


def test_a_grid_may_reach_beyond_but_not_be_none():
    assert GRID.crop((slice(-2, 3), slice(0, 5), slice(0, 6))).shape == (5, 5, 6)
    with pytest.raises(ValueError, match="empty axis"):
        GRID.crop((slice(2, 2), slice(0, 5), slice(0, 6)))


@pytest.mark.parametrize("spacing", [(0.0, 1, 1), (-1.0, 1, 1), (np.nan, 1, 1), (np.inf, 1, 1)])
def test_a_spacing_is_positive(spacing):
    with pytest.raises(ValueError, match="not positive"):
        Grid((4, 5, 6), spacing, (0, 0, 0), AXES)


@pytest.mark.parametrize("axes", [AXES * 1.01, np.ones((3, 3)), AXES[:2]])
def test_axes_are_at_right_angles(axes):
    with pytest.raises(ValueError, match="not three orthogonal unit vectors"):
        Grid((4, 5, 6), (1, 1, 1), (0, 0, 0), axes)


def test_voxels_fit_their_grid():
    with pytest.raises(ValueError, match="voxels have shape"):
        Volume(GRID, np.zeros((4, 5, 5), np.int16))
