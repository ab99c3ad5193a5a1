"""Slices on scales of their own, brought back to one."""

import numpy as np
import pytest
from scipy import ndimage

from kits.medical.data.even import HIGHEST_HU, LUNG_HU, even_slices, line_between


def thorax(depth=7, size=48):
    """Lung with noise, a wall that moves from slice to slice, a ball in the middle."""
    rng = np.random.default_rng(0)
    volume = rng.normal(-860, 25, (depth, size, size))
    for k in range(depth):
        volume[k, :, : 6 + k] = 40 + rng.normal(0, 15, (size, 6 + k))
    place = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), -1)
    inside = np.linalg.norm((place - (depth // 2, 24, 28)) * (2, 1, 1), axis=-1) < 6
    volume[inside] = 30
    return ndimage.gaussian_filter(volume, (0, 0.6, 0.6))


def test_slices_scaled_each_on_its_own_come_back_to_one_scale():
    volume = thorax()
    rng = np.random.default_rng(1)
    # What is brightest differs from slice to slice, and with it the scale.
    highest = volume.max((1, 2), keepdims=True) + rng.uniform(0, 900, (len(volume), 1, 1))
    lowest = volume.min((1, 2), keepdims=True)
    shades = np.round((volume - lowest) / (highest - lowest) * 255).astype(np.uint8)
    even = even_slices(shades)
    # One line leads from the values of all slices to the true ones.
    gain, shift = np.polyfit(even.ravel(), volume.ravel(), 1)
    assert np.abs(gain * even + shift - volume).mean() < 12
    walls = [float(np.median(slice_[:, :5])) for slice_ in gain * even + shift]
    assert np.ptp(walls) < 40
    before = [float(np.median(slice_[:, :5])) for slice_ in shades]
    assert np.ptp(before) / np.mean(before) > 0.3


def test_the_scale_is_said_by_lung_and_the_brightest_voxel():
    even = even_slices(np.round((thorax() + 1000) / 1400 * 255).clip(0, 255).astype(np.uint8))
    assert even.dtype == np.int16
    assert even.max() == HIGHEST_HU
    assert np.percentile(even, 10) == pytest.approx(LUNG_HU, abs=1)


def test_a_slice_without_contrast_breaks_nothing():
    shades = np.zeros((3, 8, 8), np.uint8)
    shades[1, 2:5, 2:5] = 200
    even = even_slices(shades)
    assert even[1].max() == HIGHEST_HU
    assert np.ptp(even[0]) == np.ptp(even[2]) == 0


def test_the_line_is_that_of_most_places_and_the_same_both_ways():
    rng = np.random.default_rng(0)
    given = rng.uniform(0, 100, 500)
    wanted = 1.7 * given - 20 + rng.normal(0, 1, 500)
    wanted[:60] = 300  # a vessel that is in one slice alone
    gain, shift = line_between(given, wanted)
    assert gain == pytest.approx(1.7, abs=0.03)
    assert shift == pytest.approx(-20, abs=2)
    back, _ = line_between(wanted, given)
    assert back == pytest.approx(1 / gain, rel=0.03)
