"""Crops of small made-up cases."""

import numpy as np
import pytest

from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.votes import readers_of
from kits.medical.geometry import Grid, Volume
from kits.medical.metrics.dice import consensus_of_others
from kits.medical.sampling import (
    FULL,
    UNKNOWN,
    crops_of,
    cut,
    end_in_air,
    soft_votes,
    texture_class,
    view_of,
)
from kits.medical.sampling_config import SamplingConfig

AXES = np.eye(3)[::-1]
READERS = 4
SMALL = SamplingConfig(patch=[16, 16, 16], lung_crops=4)


def ball(shape, centre, radius):
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return np.linalg.norm(place - centre, axis=-1) <= radius


def make_case(
    shape=(24, 40, 40),
    spacing_mm=(1.25, 0.7, 0.7),
    extent="scan",
    num_readers=4,
    centre=(12, 20, 16),
    radii=(3, 4, 4, 5),
):
    votes = np.zeros(shape, np.uint8)
    for number, radius in enumerate(radii[:num_readers]):
        votes |= ball(shape, centre, radius).astype(np.uint8) << number
    voxels = np.where(votes > 0, 30, -850).astype(np.int16)
    nodule = TrueNodule(
        "a", tuple(slice(0, n) for n in shape), votes, num_readers, 6.0, texture=5.0
    )
    grid = Grid(shape, spacing_mm, (0.0, 0.0, 0.0), AXES)
    intensity = "slice" if extent == "patch" else "hu"
    return Case(
        "case", "patient", Volume(grid, voxels), (nodule,), extent, intensity,
        lungs=np.ones(shape, bool),
    )  # fmt: skip


def crops(case, cfg=SMALL):
    return list(crops_of(case, cfg, READERS, np.random.default_rng(0)))


def window(*bounds):
    return tuple(slice(*pair) for pair in bounds)


@pytest.mark.parametrize("num_readers", [2, 3, 4])
def test_the_target_others_is_the_mean_of_the_others_consensus(num_readers):
    (nodule,) = make_case(num_readers=num_readers).nodules
    masks = np.stack([nodule.reader(number) for number in readers_of(nodule.votes)])
    wanted = consensus_of_others(masks).mean(0)
    np.testing.assert_allclose(soft_votes(nodule, "others"), wanted, atol=1e-6)
    np.testing.assert_allclose(soft_votes(nodule, "share"), masks.mean(0), atol=1e-6)


def test_one_reader_is_his_own_target():
    (nodule,) = make_case(num_readers=1).nodules
    assert set(np.unique(soft_votes(nodule, "others"))) == {0.0, 1.0}


def test_a_scan_gives_crops_of_every_kind_and_a_patch_only_its_nodule():
    kinds = [crop.kind for crop in crops(make_case())]
    assert kinds == ["fine_nodules", *["fine_lungs"] * 4, "coarse_nodules", *["coarse_lungs"] * 4]
    (only,) = crops(make_case(extent="patch"))
    assert only.kind == "fine_nodules"
    assert only.is_patch


def test_a_nodule_lies_in_the_middle_of_its_crop_at_both_scales():
    for crop in crops(make_case()):
        if crop.nodule:
            middle = (np.array(crop.image.shape) - 1) / 2
            assert np.abs(crop.centres[0] - middle).max() <= 0.5
            place = tuple(np.round(crop.centres[0]).astype(int))
            assert crop.votes[place] == FULL
            assert crop.image[place] > -100


def test_thick_slices_are_interpolated_and_meet_the_scans_own():
    case = make_case(spacing_mm=(2.5, 0.7, 0.7))
    view = view_of(case, "fine", "share", READERS)
    assert view.spacing_mm[0] == 1.25
    assert view.shape == (47, 40, 40)
    image, votes = cut(view, window((0, 47), (0, 40), (0, 40)), is_edge=False)
    np.testing.assert_array_equal(image[::2], case.volume.voxels)
    np.testing.assert_allclose(image[1], image[[0, 2]].mean(0), atol=0.51)
    assert votes.max() == FULL


def test_beyond_a_scan_is_air_and_beyond_a_patch_nothing_is_known():
    view = view_of(make_case(), "fine", "share", READERS)
    image, votes = cut(view, window((-4, 8), (0, 8), (36, 44)), is_edge=False)
    assert (image[:4] == -1000).all()
    assert (image[:, :, 4:] == -1000).all()
    assert not votes.any()
    _, votes = cut(view, window((-4, 8), (0, 8), (36, 44)), is_edge=True)
    assert (votes[:4] == UNKNOWN).all()
    assert (votes[4:, :, :4] != UNKNOWN).all()


def test_a_patchs_slices_end_in_air_and_its_rows_go_on():
    view = view_of(make_case(extent="patch"), "fine", "share", READERS)
    image, votes = cut(view, window((-4, 8), (0, 8), (36, 44)), is_edge=True)
    ended = end_in_air(image, votes)
    assert (ended[:4] == -1000).all()
    assert (ended[4:, :, 4:] == ended[4:, :, 3:4]).all()
    np.testing.assert_array_equal(ended[4:], image[4:])


@pytest.mark.parametrize("bounds", [(-40, -30), (60, 70)])
def test_a_window_outside_the_scan_is_all_air(bounds):
    view = view_of(make_case(), "fine", "share", READERS)
    image, votes = cut(view, window(bounds, (0, 8), (0, 8)), is_edge=False)
    assert image.shape == (10, 8, 8)
    assert (image == -1000).all()
    assert not votes.any()


def test_a_nodule_of_few_readers_counts_neither_as_there_nor_as_absent():
    found = crops(make_case(num_readers=1))
    assert not any(crop.nodule for crop in found)
    assert any((crop.votes == UNKNOWN).any() for crop in found)
    assert not any((crop.votes == FULL).any() for crop in found)


def test_textures_are_named_by_their_rating():
    assert [texture_class(rating) for rating in (1, 2, 3, 4, 5, None)] == [2, 2, 1, 0, 0, -1]


def test_the_same_seed_cuts_the_same_crops():
    for one, other in zip(crops(make_case()), crops(make_case()), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
