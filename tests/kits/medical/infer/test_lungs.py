import itertools

import numpy as np
import pytest

from kits.medical.geometry import Volume
from kits.medical.infer.lungs import NoLungs, find_lungs

RNG = np.random.default_rng(7)


def around(mask):
    found = np.argwhere(mask)
    return [(int(a), int(b)) for a, b in zip(found.min(0), found.max(0) + 1, strict=True)]


def aerated_ml(volume, toy):
    return (volume.voxels == toy.LUNG_HU).sum() * volume.grid.voxel_mm3 / 1000


def test_both_lungs_are_inside_the_window(toy):
    volume = toy.thorax()
    lungs = find_lungs(volume)
    assert lungs.note == ""
    for (low, high), part in zip(around(volume.voxels == toy.LUNG_HU), lungs.window, strict=True):
        assert part.start <= low
        assert high <= part.stop
    box = [part.stop - part.start for part in lungs.window]
    assert np.prod(box) < 0.6 * volume.voxels.size
    assert lungs.volume_ml == pytest.approx(aerated_ml(volume, toy), rel=0.05)


def test_noise_changes_little(toy):
    volume = toy.thorax()
    noisy = volume.voxels + RNG.normal(0, 60, volume.voxels.shape).astype(np.int16)
    found = find_lungs(Volume(volume.grid, noisy))
    assert found.volume_ml == pytest.approx(aerated_ml(volume, toy), rel=0.05)


def test_one_lung_that_holds_air_is_enough(toy):
    volume = toy.thorax(sides=(0.3,))
    lungs = find_lungs(volume)
    assert lungs.note == ""
    assert lungs.window[2].stop < 0.6 * volume.grid.shape[2]


def test_a_hollow_table_is_no_lung(toy):
    volume = toy.thorax()
    without = find_lungs(volume)
    volume.voxels[:, -5:-1, 4:-4] = 100
    volume.voxels[:, -4:-2, 5:-5] = -930
    assert find_lungs(volume).window == without.window


def test_pure_air_is_no_lung(toy):
    volume = toy.thorax()
    without = find_lungs(volume)
    volume.voxels[toy.ellipsoid(volume.grid.shape, (4, 24, 28), (3.5, 4, 2.5))] = -1000
    found = find_lungs(volume)
    assert found.window == without.window
    assert found.volume_ml == without.volume_ml


def test_a_windpipe_above_the_lungs_does_not_widen_the_window(toy):
    volume = toy.thorax()
    without = find_lungs(volume)
    # Joined to a lung below, three voxels wide above.
    volume.voxels[30:33, 23:26, 16:30] = -700
    volume.voxels[33:40, 23:26, 27:30] = -990
    found = find_lungs(volume)
    assert found.window[0] == without.window[0]
    assert found.volume_ml < without.volume_ml + 30


def test_nodules_at_the_chest_wall_are_inside_the_region(toy):
    volume = toy.thorax((96, 96, 112), (1.5, 2.0, 2.0), balls=[(48, 48, 18, 7)])
    lungs = find_lungs(volume)
    assert lungs.holds(np.array([(48, 48, 18)])).all()
    assert not lungs.holds(np.array([(48, 90, 56), (2, 2, 2)])).any()


@pytest.mark.parametrize("shape", [(5, 6, 7), (3, 1, 9)])
@pytest.mark.parametrize("block", [(4, 6, 3), (16, 16, 16), (2, 2, 2)])
def test_blocks_are_those_with_a_voxel_in_the_region(toy, block, shape):
    volume = toy.thorax((14, 20, 24), (1.5, 1.0, 1.0))
    whole = find_lungs(toy.thorax())
    region = RNG.random((7, 7, 8)) < 0.2
    lungs = type(whole)(whole.window, region, (2, 3, 3), 1.0)
    found = lungs.blocks(block, shape)
    voxels = np.zeros(tuple(np.multiply(block, shape) + 64), bool)
    for at in itertools.product(*map(range, volume.grid.shape)):
        voxels[at] = region[tuple(np.array(at) // (2, 3, 3))]
    for at in np.ndindex(*shape):
        part = tuple(slice(a * b, (a + 1) * b) for a, b in zip(at, block, strict=True))
        assert found[at] == voxels[part].any()


def test_lungs_cut_by_the_first_and_last_slice_are_found(toy):
    volume = toy.thorax((60, 48, 56))
    cut = Volume(
        volume.grid.crop((slice(15, 45), slice(0, 48), slice(0, 56))), volume.voxels[15:45]
    )
    assert find_lungs(cut).note == ""


def test_lungs_at_the_side_of_the_image_mean_the_whole_scan(toy):
    volume = toy.thorax()
    cut = volume.crop((slice(0, 40), slice(12, 36), slice(12, 44)))
    lungs = find_lungs(cut)
    assert "side of the image" in lungs.note
    assert lungs.region.all()
    assert [part.stop for part in lungs.window] == list(cut.grid.shape)


def test_lungs_too_small_to_be_true_mean_the_whole_scan(toy):
    lungs = find_lungs(toy.thorax(spacing_mm=(2.0, 2.0, 2.0)))
    assert "not plausible" in lungs.note
    assert lungs.region.all()


@pytest.mark.parametrize("hu", [-1000, 0, 40])
def test_a_scan_without_lungs_is_refused(toy, hu):
    volume = toy.thorax(sides=())
    volume.voxels[10:30, 20:28, 20:30] = hu
    with pytest.raises(NoLungs, match="of the chest") as told:
        find_lungs(volume)
    assert told.value.code == "no-lungs"
