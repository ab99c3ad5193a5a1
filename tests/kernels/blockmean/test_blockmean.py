import numpy as np
import pytest

from kernels.blockmean import block_mean
from kernels.blockmean.reference import block_mean_reference

RNG = np.random.default_rng(3)


def voxels(*shape):
    return RNG.integers(-32768, 32767, shape, np.int16, endpoint=True)


@pytest.mark.parametrize(
    ("shape", "factors"),
    [
        ((1, 1, 1), (1, 1, 1)),
        ((5, 7, 9), (1, 1, 1)),
        ((6, 8, 10), (2, 2, 2)),
        ((7, 9, 11), (2, 2, 2)),
        ((7, 9, 33), (1, 3, 3)),
        ((3, 5, 41), (4, 4, 4)),
        ((9, 12, 31), (3, 2, 5)),
        ((2, 3, 8200), (1, 2, 2)),
        ((4, 4, 4), (8, 8, 8)),
    ],
)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equals_the_reference_to_the_bit(shape, factors, threads):
    given = voxels(*shape)
    wanted = block_mean_reference(given, factors)
    out = np.full(wanted.shape, np.nan, np.float32)
    found = block_mean(given, factors, threads=threads, out=out)
    assert found is out
    np.testing.assert_array_equal(found, wanted)


def test_reference_is_the_mean_of_what_is_there():
    given = np.arange(12, dtype=np.int16).reshape(1, 3, 4)
    found = block_mean_reference(given, (2, 2, 3))
    np.testing.assert_array_equal(found, [[[(0 + 1 + 2 + 4 + 5 + 6) / 6, 5], [9, 11]]])


def test_reads_views_of_a_larger_volume_in_place():
    whole = voxels(20, 30, 40)
    view = whole[3:17:1, 5:26, 7:38]
    np.testing.assert_array_equal(
        block_mean(view, (2, 2, 2)), block_mean_reference(view, (2, 2, 2))
    )
    flipped = whole[::-1, ::-1, ::-2]
    np.testing.assert_array_equal(
        block_mean(flipped, (2, 3, 2)), block_mean_reference(flipped, (2, 3, 2))
    )


@pytest.mark.parametrize(
    ("given", "factors", "settings", "told"),
    [
        (np.zeros((2, 2, 2), np.float32), (1, 1, 1), {}, "int16"),
        (np.zeros((2, 2), np.int16), (1, 1, 1), {}, "shape"),
        (np.zeros((2, 0, 2), np.int16), (1, 1, 1), {}, "not empty"),
        (np.zeros((2, 2, 2), np.int16), (0, 1, 1), {}, "factors"),
        (np.zeros((2, 2, 2), np.int16), (64, 64, 64), {}, "factors"),
        (np.zeros((2, 2, 2), np.int16), (1, 1, 1), {"threads": 0}, "threads=0"),
        (np.zeros((2, 2, 2), np.int16), (1, 1, 1), {"out": np.zeros((2, 2, 2))}, "out is float64"),
    ],
)
def test_refuses_what_it_cannot_average(given, factors, settings, told):
    with pytest.raises(ValueError, match=told):
        block_mean(given, factors, **settings)
