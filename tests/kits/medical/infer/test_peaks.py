import numpy as np

from kits.medical.infer.peaks import find_peaks


def bump(shape, *places):
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    total = np.zeros(shape, np.float32)
    for at, height in places:
        total = np.maximum(total, height * np.exp(-((grid - at) ** 2).sum(-1) / 4))
    return total.astype(np.float32)


def test_peaks_come_highest_first_at_places_between_cells():
    heat = bump((12, 14, 16), ((3.3, 4, 5.2), 1.0), ((8, 9.4, 11), 2.0))
    places, heights = find_peaks(heat, 0.3, 2)
    np.testing.assert_allclose(places, [(8, 9.4, 11), (3.3, 4, 5.2)], atol=0.1)
    assert heights[0] > heights[1]


def test_lower_peaks_close_to_a_higher_one_are_left_out():
    heat = np.zeros((9, 9, 9), np.float32)
    heat[4, 4, 2], heat[4, 4, 4], heat[4, 4, 8] = 2, 3, 1
    places, _ = find_peaks(heat, 0.5, 3)
    np.testing.assert_array_equal(np.round(places), [(4, 4, 4), (4, 4, 8)])


def test_a_plateau_is_one_peak():
    heat = np.zeros((5, 5, 5), np.float32)
    heat[2, 2, 1:4] = 1
    places, _ = find_peaks(heat, 0.5, 3)
    assert len(places) == 1


def test_cells_that_nobody_computed_are_no_peaks():
    heat = np.full((4, 4, 4), -np.inf, np.float32)
    assert len(find_peaks(heat, -np.inf, 2)[0]) == 0
    heat[1, 1, 1] = -3
    places, heights = find_peaks(heat, -5, 2)
    np.testing.assert_array_equal(places, [(1, 1, 1)])
    np.testing.assert_array_equal(heights, [-3])


def test_an_empty_map_has_none():
    assert len(find_peaks(np.zeros((0, 3, 3), np.float32), 0, 2)[0]) == 0
