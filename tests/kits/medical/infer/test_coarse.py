import numpy as np
import pytest

from kits.medical.infer.coarse import coarse_image, find_candidates, find_heat
from kits.medical.infer.lungs import Lungs, find_lungs
from kits.medical.infer.settings import Settings

BALLS = [(40, 50, 34, 4), (60, 40, 78, 6)]


def quiet(step, share):
    pass


def everywhere(volume):
    shape = volume.grid.shape
    window = tuple(slice(0, size) for size in shape)
    return Lungs(window, np.ones(shape, bool), (1, 1, 1), 1.0)


@pytest.fixture(scope="module")
def volume(toy):
    return toy.thorax((96, 95, 111), (1.25, 0.7, 1.4), balls=BALLS)


def test_tiles_give_what_the_whole_gives(toy, volume):
    network = toy.network()
    whole = coarse_image(volume, (slice(0, 96), slice(0, 48), slice(0, 112)), (1, 2, 1))
    wanted = network({"image": whole[None, None]})["heat"][0, 0]
    settings = Settings(multiple=16, halo=24, max_tile_voxels=200_000)
    calls = []

    def counted(inputs):
        calls.append(inputs["image"].shape)
        return network(inputs)

    heat = find_heat(volume, find_lungs(volume), counted, settings, quiet)
    assert len(calls) > 1
    assert len(set(calls)) == 1
    start, shape = heat.start, heat.values.shape
    part = wanted[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
    known = np.isfinite(heat.values)
    assert known.any()
    np.testing.assert_allclose(heat.values[known], part[known], atol=1e-4)


def test_a_halo_that_is_too_small_differs(toy, volume):
    network = toy.network()
    lungs = everywhere(volume)
    found = [
        find_heat(
            volume, lungs, network, Settings(multiple=2, halo=halo, max_tile_voxels=voxels), quiet
        )
        for halo, voxels in ((24, 10**9), (2, 30_000))
    ]
    assert np.abs(found[0].values - found[1].values).max() > 1e-2


@pytest.mark.parametrize("spacing_mm", [(1.25, 0.7, 1.4), (2.5, 1.4, 0.7), (0.7, 0.7, 0.5)])
def test_candidates_lie_where_the_balls_are(toy, spacing_mm):
    balls = [(33, 30, 28.5, 6), (17, 50.5, 40, 7)]
    steps = np.array(spacing_mm)
    shape = tuple(int(n) for n in np.round(np.array([52, 64, 68]) * 1.4 / steps))
    grid = toy.grid(shape, spacing_mm)
    voxels = np.full(shape, toy.LUNG_HU, np.int16)
    places = [np.array(ball[:3]) * 1.4 / steps for ball in balls]
    for place, ball in zip(places, balls, strict=True):
        voxels[toy.ellipsoid(shape, place, ball[3] * 0.7 / steps * 1.4)] = toy.TISSUE_HU
    volume = type(toy.thorax())(grid, voxels)
    lungs = everywhere(volume)
    settings = Settings(multiple=2, candidate_threshold=0.5)
    heat = find_heat(volume, lungs, toy.network(2.5), settings, quiet)
    found = find_candidates(heat, lungs, settings)
    for place in places:
        nearest = min(np.linalg.norm((each.index - place) * steps) for each in found)
        assert nearest < 1.0


def test_candidates_come_highest_first_and_not_more_than_allowed(toy):
    rng = np.random.default_rng(0)
    volume = toy.thorax((48, 48, 48), (1.4, 1.4, 1.4))
    volume.voxels[:] = rng.integers(-1000, 200, volume.voxels.shape)
    lungs = everywhere(volume)
    settings = Settings(multiple=2, candidate_threshold=0.0)
    heat = find_heat(volume, lungs, toy.network(0.6), settings, quiet)
    found = find_candidates(heat, lungs, settings)
    assert len(found) == 32
    logits = [each.logit for each in found]
    assert logits == sorted(logits, reverse=True)


def test_peaks_outside_the_region_are_no_candidates(toy, volume):
    settings = Settings(multiple=2, candidate_threshold=0.3)
    lungs = everywhere(volume)
    heat = find_heat(volume, lungs, toy.network(), settings, quiet)
    assert find_candidates(heat, lungs, settings)
    lungs.region[:] = False
    assert not find_candidates(heat, lungs, settings)


def test_progress_ends_at_one(toy, volume):
    told = []
    find_heat(
        volume, everywhere(volume), toy.network(), Settings(max_tile_voxels=100_000),
        lambda step, share: told.append((step, share)),
    )  # fmt: skip
    assert told[-1] == ("coarse", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)
