import numpy as np
import pytest

from kits.medical.geometry import Volume
from kits.medical.infer.crops import FineGrid, look
from kits.medical.infer.settings import Settings

RNG = np.random.default_rng(11)


def volume_of(toy, shape, spacing_mm):
    voxels = RNG.integers(-1000, 400, shape).astype(np.int16)
    return Volume(toy.grid(shape, spacing_mm), voxels)


@pytest.mark.parametrize(
    ("depth_mm", "factor"), [(0.6, 1), (1.25, 1), (1.5, 1), (2.0, 2), (2.5, 2), (5.0, 4)]
)
def test_thick_slices_alone_are_interpolated(toy, depth_mm, factor):
    fine = FineGrid(volume_of(toy, (7, 8, 9), (depth_mm, 0.7, 0.7)), 4)
    assert fine.factor == factor
    assert fine.spacing_mm[0] == pytest.approx(depth_mm / factor)
    assert fine.shape == (-(-(6 * factor + 1) // 4) * 4, 8, 12)


@pytest.mark.parametrize("depth_mm", [1.0, 2.5, 5.0])
def test_a_cut_is_the_scan_between_its_slices_and_air_beyond(toy, depth_mm):
    volume = volume_of(toy, (7, 8, 9), (depth_mm, 0.7, 0.7))
    fine = FineGrid(volume, 8)
    out = np.full(fine.shape, np.nan, np.float32)
    fine.cut(tuple(slice(0, size) for size in fine.shape), out)
    last = 6 * fine.factor
    at = np.arange(last + 1) / fine.factor
    wanted = np.apply_along_axis(lambda line: np.interp(at, np.arange(7), line), 0, volume.voxels)
    np.testing.assert_allclose(out[: last + 1, :8, :9], wanted, atol=1e-3)
    assert (out[last + 1 :] == -1000).all()
    assert (out[:, :, 9:] == -1000).all()
    part = np.full((8, 8, 8), np.nan, np.float32)
    fine.cut((slice(8, 16), slice(0, 8), slice(8, 16)), part) if fine.shape[0] >= 16 else None
    if fine.shape[0] >= 16:
        np.testing.assert_array_equal(part, out[8:16, :, 8:16])


def test_windows_start_at_multiples_and_hold_core_and_halo(toy):
    fine = FineGrid(volume_of(toy, (90, 100, 110), (1.0, 0.5, 0.8)), 8)
    for index in RNG.random((50, 3)) * (90, 100, 110):
        window = fine.window(index, 6.0, 5)
        for part, at, step, end in zip(window, index, fine.spacing_mm, fine.shape, strict=True):
            assert part.start % 8 == part.stop % 8 == 0
            assert 0 <= part.start <= max(at - 3 / step - 5, 0)
            assert part.stop >= min(at + 3 / step + 5, end)
            assert part.stop <= end


def test_batches_give_what_one_by_one_gives_in_the_same_order(toy):
    fine = FineGrid(volume_of(toy, (40, 44, 48), (1.0, 1.0, 1.0)), 4)
    windows = [fine.window(at, mm, 4) for at in RNG.random((5, 3)) * 40 for mm in (4, 4, 8)]
    one = list(look(toy.network(), fine, windows, Settings(batch=1)))
    four = list(look(toy.network(), fine, windows, Settings(batch=4)))
    assert [patch.window for patch in four] == windows
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(a.mask, b.mask, atol=1e-5)
        np.testing.assert_allclose(a.heat, b.heat, atol=1e-5)
        np.testing.assert_allclose(a.texture, b.texture, atol=1e-5)


def test_a_crop_gives_what_the_whole_gives_within_its_halo(toy):
    fine = FineGrid(volume_of(toy, (48, 48, 64), (2.5, 1.0, 1.0)), 4)
    whole = np.empty((1, 1, *fine.shape), np.float32)
    fine.cut(tuple(slice(0, size) for size in fine.shape), whole[0, 0])
    wanted = toy.network()({"image": whole})
    (window,) = [fine.window(np.array([20, 24, 30]), 10.0, 23)]
    (patch,) = look(toy.network(), fine, [window], Settings())
    core = tuple(slice(part.start + 23, part.stop - 23) for part in window)
    inner = tuple(slice(23, part.stop - part.start - 23) for part in window)
    np.testing.assert_allclose(patch.mask[inner], wanted["mask"][0, 0][core], atol=1e-4)
