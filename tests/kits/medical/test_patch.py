"""Masks of patches: on their own grid, of one nodule, with the best Dice to be expected."""

from itertools import product

import numpy as np
import pytest

from kits.medical.data.case import Case, TrueNodule
from kits.medical.geometry import Grid, Volume
from kits.medical.patch import best_mask, predict_patch

AXES = np.eye(3)[::-1]


def ball(shape, centre, radius):
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return np.linalg.norm(place - centre, axis=-1) <= radius


def make_patch(shape=(24, 40, 40), spacing_mm=(1.25, 0.7, 0.7), centre=(12, 20, 16)):
    is_nodule = ball(shape, centre, 4)
    nodule = TrueNodule(
        "a", tuple(slice(0, n) for n in shape), is_nodule.astype(np.uint8), 1, 6.0, texture=5.0
    )
    grid = Grid(shape, spacing_mm, (0.0, 0.0, 0.0), AXES)
    voxels = np.where(is_nodule, 30, -850).astype(np.int16)
    return Case("case", "patient", Volume(grid, voxels), (nodule,), "patch", "slice")


def bright(inputs):
    """A network that marks what is dense."""
    image = inputs["image"]
    assert all(size % 8 == 0 for size in image.shape[2:])
    return {"mask": np.where(image > -400, 8.0, -8.0).astype(np.float32)}


@pytest.mark.parametrize("spacing_mm", [(1.25, 0.7, 0.7), (2.5, 0.7, 0.7), (5.0, 0.7, 0.7)])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_patchs_mask_comes_back_on_its_own_grid(spacing_mm, is_mirrored):
    case = make_patch((5, 37, 41), spacing_mm, (2, 17, 22))
    found = predict_patch(case, bright, multiple=8, is_mirrored=is_mirrored)
    np.testing.assert_array_equal(found, case.volume.voxels > -400)


def test_all_four_mirror_images_are_looked_at_once():
    seen = []

    def network(inputs):
        seen.append(inputs["image"][0, 0])
        return bright(inputs)

    case = make_patch((8, 40, 40), centre=(4, 20, 20))
    case.volume.voxels[4, 20, 20:30] = np.arange(-840, -740, 10)
    predict_patch(case, network, multiple=8, is_mirrored=True)
    assert len({image.tobytes() for image in seen}) == len(seen) == 4
    # Slices keep their order.
    assert {round(float(image[16].sum())) for image in seen} == {round(float(seen[0][16].sum()))}


def test_a_network_sees_where_the_slices_end():
    seen = []

    def network(inputs):
        seen.append(inputs["image"][0, 0])
        return bright(inputs)

    predict_patch(
        make_patch((6, 16, 16), centre=(3, 8, 8)), network, multiple=8, sample=(12, 16, 16)
    )
    (image,) = seen
    assert image.shape == (16, 16, 16)
    assert (image[:5] == -1000).all()
    assert (image[11:] == -1000).all()
    assert (image[5:11] > -1000).all()


def test_of_two_parts_the_one_nearest_to_the_middle_is_the_nodule():
    case = make_patch((12, 40, 40), centre=(6, 20, 20))
    case.volume.voxels[4:8, 2:12, 2:12] = 50
    found = predict_patch(case, bright, multiple=8)
    assert found[6, 20, 20]
    assert not found[5, 5, 5]


def test_a_network_that_sees_nothing_gives_an_empty_mask():
    case = make_patch()
    case.volume.voxels[:] = -850
    assert not predict_patch(case, bright, multiple=8).any()


def test_no_other_mask_has_a_higher_dice_to_be_expected():
    probability = np.random.default_rng(0).uniform(0, 1, (1, 3, 3))

    def expected(mask):
        return 2 * (probability * mask).sum() / max(mask.sum() + probability.sum(), 1e-9)

    masks = [np.array(bits, bool).reshape(1, 3, 3) for bits in product((0, 1), repeat=9)]
    assert expected(best_mask(probability)) == pytest.approx(max(map(expected, masks)))


def test_an_outline_in_doubt_is_drawn_wider():
    sure = np.array([0.95] * 10 + [0.4] * 4)[None, None]
    in_doubt = np.array([0.6] * 10 + [0.4] * 4)[None, None]
    assert best_mask(sure).sum() == 10
    assert best_mask(in_doubt).sum() == 14
    assert not best_mask(np.zeros((1, 2, 2))).any()
