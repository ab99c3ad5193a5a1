import numpy as np
import pytest

from kits.medical.infer.tiles import padded_shape, plan_tiles

RNG = np.random.default_rng(5)


def paint(tiles, shape):
    times = np.zeros(shape, int)
    for tile in tiles:
        times[tile.core] += 1
    return times


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize(("multiple", "halo"), [(2, 3), (8, 16), (16, 24)])
def test_cores_hold_every_wanted_block_once(share, multiple, halo):
    wanted = RNG.random((6, 5, 9)) < share
    tiles = plan_tiles(wanted, multiple, halo, 200_000)
    times = paint(tiles, tuple(n * multiple for n in wanted.shape))
    voxels = np.kron(wanted, np.ones((multiple,) * 3))
    assert times.max() == 1
    assert (times[voxels > 0] == 1).all()


def test_windows_are_of_one_shape_in_multiples_and_hold_the_halo():
    wanted = np.zeros((8, 8, 8), bool)
    wanted[1:7, 2:8, 3:5] = True
    tiles = plan_tiles(wanted, 8, 10, 70_000)
    shapes = {tuple(p.stop - p.start for p in tile.window) for tile in tiles}
    assert len(shapes) == 1
    assert np.prod(shapes.pop()) <= 70_000
    for tile in tiles:
        for window, core in zip(tile.window, tile.core, strict=True):
            assert window.start % 8 == window.stop % 8 == core.start % 8 == core.stop % 8 == 0
            assert 0 <= window.start <= max(core.start - 10, 0)
            assert min(core.stop + 10, 64) <= window.stop <= 64


def test_leaves_out_tiles_that_nobody_wants():
    wanted = np.zeros((4, 4, 40), bool)
    wanted[:, :, :4] = wanted[:, :, -4:] = True
    tiles = plan_tiles(wanted, 8, 8, 1_000_000)
    times = paint(tiles, (32, 32, 320))
    assert times[:, :, 128:192].max() == 0


def test_a_bound_below_the_smallest_tile_gives_the_smallest():
    (tile, *_) = plan_tiles(np.ones((3, 3, 3), bool), 8, 8, 1)
    assert [p.stop - p.start for p in tile.window] == [24, 24, 24]


def test_a_bound_that_only_the_smallest_tiles_meet_is_met():
    # Thirty blocks along an axis, and a core may hold one of them.
    tiles = plan_tiles(np.ones((3, 4, 30), bool), 8, 8, 24**3)
    assert {tuple(p.stop - p.start for p in tile.window) for tile in tiles} == {(24, 24, 24)}
    assert paint(tiles, (24, 32, 240)).all()


def test_nothing_wanted_is_no_tile():
    assert plan_tiles(np.zeros((2, 2, 2), bool), 8, 8, 1000) == []


def test_padded_shape_is_the_next_multiple():
    assert padded_shape((1, 16, 17), 16) == (16, 16, 32)
