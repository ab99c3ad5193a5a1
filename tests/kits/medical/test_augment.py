"""Samples drawn from a crop: what moves together, what is cut, what is known."""

from dataclasses import replace

import numpy as np
import pytest

from kits.medical.augment import plain_sample, training_sample
from kits.medical.sampling import FULL, UNKNOWN, Crop
from kits.medical.sampling_config import SamplingConfig

SHAPE = (24, 44, 44)
CENTRE = (11.5, 21.5, 21.5)
STILL = SamplingConfig(
    patch=[16, 16, 16], affine=0.0, max_noise_hu=0.0, max_shift_hu=0.0, max_gain=0.0, blur=0.0
)


def make_crop(**changes):
    place = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    is_ball = np.linalg.norm(place - CENTRE, axis=-1) <= 3
    fields = {
        "kind": "fine_nodules", "case": "case", "nodule": "a",
        "image": np.where(is_ball, 50, -850).astype(np.int16),
        "votes": np.where(is_ball, FULL, 0).astype(np.uint8),
        "spacing_mm": (1.0, 1.0, 1.0),
        "centres": np.array([CENTRE], np.float32), "diameters_mm": np.array([6.0], np.float32),
        "textures": np.array([2], np.int8), "is_certain": np.array([True]),
        "is_patch": False,
    }  # fmt: skip
    return Crop(**{**fields, **changes})


def draws(crop, cfg, number=20):
    return [training_sample(crop, cfg, np.random.default_rng(seed)) for seed in range(number)]


def peak_of(sample):
    (cell,) = np.argwhere(sample.heat == 1)
    return (cell + 0.5) * 2 - 0.5


def middle_of(votes):
    return np.argwhere(votes > 0.5).mean(0)


@pytest.mark.parametrize("affine", [0.0, 1.0])
def test_image_votes_and_centre_move_together(affine):
    for sample in draws(make_crop(), replace(STILL, affine=affine)):
        assert (sample.image[sample.votes > 0.8] > -300).all()
        # A cell of the heat-map is two voxels wide.
        assert np.abs(peak_of(sample) - middle_of(sample.votes)).max() <= 1.3


def test_samples_are_shifted_and_scaled():
    sizes = {round(sample.votes.sum()) for sample in draws(make_crop(), replace(STILL, affine=1.0))}
    places = {tuple(peak_of(sample)) for sample in draws(make_crop(), STILL)}
    assert len(sizes) > 5
    assert len(places) > 5


def test_a_generator_decides_all():
    cfg = SamplingConfig(patch=[16, 16, 16], affine=0.5)
    for one, other in zip(draws(make_crop(), cfg, 6), draws(make_crop(), cfg, 6), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.heat, other.heat)


def test_a_plain_sample_is_the_middle_of_the_crop():
    crop = make_crop()
    sample = plain_sample(crop, STILL)
    np.testing.assert_array_equal(sample.image, crop.image[4:20, 14:30, 14:30])
    assert sample.heat.shape == (8, 8, 8)
    assert np.abs(peak_of(sample) - 7.5).max() <= 1


@pytest.mark.parametrize("affine", [0.0, 1.0])
def test_what_is_unknown_has_no_weight(affine):
    crop = make_crop()
    crop.votes[:8] = UNKNOWN
    for sample in draws(crop, replace(STILL, affine=affine)):
        assert (sample.votes <= 1).all()
        assert sample.weight.min() == 0
        assert not sample.votes[sample.weight == 0].any()


def test_in_a_patch_absence_is_known_only_beside_the_centre():
    scan, patch = (plain_sample(make_crop(is_patch=value), STILL) for value in (False, True))
    assert scan.heat_weight.all()
    assert 0 < patch.heat_weight.mean() < 0.5
    assert patch.heat_weight[patch.heat == 1].all()


def test_an_uncertain_nodule_is_left_out_of_the_heat_map():
    sample = plain_sample(make_crop(is_certain=np.array([False])), STILL)
    assert not sample.heat.any()
    assert 0 < sample.heat_weight.mean() < 1
    assert (sample.texture == -1).all()


def test_the_texture_is_asked_for_at_the_centre():
    sample = plain_sample(make_crop(), STILL)
    assert sample.texture[sample.heat == 1] == 2
    assert set(np.unique(sample.texture)) == {-1, 2}


def test_all_slices_of_a_sample_have_one_gain():
    cfg = replace(STILL, max_gain=0.3)
    crop = make_crop(image=np.full(SHAPE, -500, np.int16))
    found = [sample.image for sample in draws(crop, cfg)]
    assert all(np.ptp(image) == 0 for image in found)
    assert len({float(image[0, 0, 0]) for image in found}) > 5
    assert all(350 - 1 <= image[0, 0, 0] + 1000 <= 650 + 1 for image in found)


def test_a_patchs_ends_are_seen_although_a_sample_has_fewer_slices():
    crop = make_crop(is_patch=True)
    crop.image[0], crop.image[-1] = 77, 99
    found = np.concatenate([sample.image.ravel() for sample in draws(crop, STILL, 60)])
    assert {77, 99} <= set(np.unique(found))


def test_noise_and_shift_stay_within_their_limits():
    cfg = replace(STILL, max_shift_hu=20.0)
    for sample in draws(make_crop(image=np.full(SHAPE, -500, np.int16)), cfg):
        assert abs(sample.image.mean() + 500) <= 20
