import platform

import numpy as np
import pytest

from kernels import native
from kernels.build import INSTRUCTION_SETS
from kernels.triage import (
    CELL,
    DIRECTIONS,
    GAIN_ONE,
    MAX_SHIFT,
    block_means,
    cell_grid,
    match,
    ridges,
    scan,
    to_planes,
)
from kernels.triage.reference import match_reference, scan_reference

SIZES = [
    (64, 64),
    (65, 127),
    (128, 192),
    (101, 131),
    (131, 515),
    (64, 1279),
    (70, 4097),
    (64, 8257),
]


def instruction_sets():
    known = INSTRUCTION_SETS.get(platform.machine(), ())
    return known[: known.index(native.instruction_set()) + 1]


@pytest.fixture(params=instruction_sets())
def instruction_set(request, monkeypatch):
    monkeypatch.setenv("DEEPKITS_ISA", request.param)
    native.load.cache_clear()
    yield request.param
    native.load.cache_clear()


def texture(seed, shape, kind):
    random = np.random.default_rng(seed)
    if kind == "noise":
        return random.integers(0, 255, shape, np.uint8, endpoint=True)
    if kind == "extremes":
        return random.choice(np.array([0, 1, 254, 255], np.uint8), shape)
    smooth = 120 + 60 * np.sin(np.arange(shape[1]) / 9) + random.normal(0, 6, shape)
    return smooth.clip(0, 255).astype(np.uint8)


def world(seed, shape, kind):
    random = np.random.default_rng(seed)
    frame = texture(seed, shape, kind)
    good = block_means(texture(seed + 1, shape, kind)).astype(int)
    low = (good - random.integers(0, 60, shape)).clip(0, 255).astype(np.uint8)
    high = (good + random.integers(0, 60, shape)).clip(0, 255).astype(np.uint8)
    low[10:30, 20:50], high[10:30, 20:50] = 0, 255
    shifts = random.integers(
        -MAX_SHIFT, MAX_SHIFT, (*cell_grid(*shape), 2), np.int32, endpoint=True
    )
    return frame, to_planes(low, 0), to_planes(high, 255), shifts


@pytest.mark.parametrize("kind", ["noise", "extremes", "smooth"])
@pytest.mark.parametrize("shape", SIZES)
def test_scan_equals_the_reference_to_the_bit(instruction_set, shape, kind):
    given = world(5, shape, kind)
    for levels, contrasts in (
        ((0, 0), [0] * 4),
        ((7, 30), [12, 9, 30, 0]),
        ((99, 255), [9, 255, 255, 255]),
    ):
        gain = {0: GAIN_ONE, 7: 13_001, 99: 31_000}[levels[0]]
        found = scan(*given, levels=levels, contrasts=contrasts, gain=gain)
        wanted = scan_reference(*given, levels, contrasts, gain)
        for name, column in vars(wanted).items():
            np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)
            assert getattr(found, name).dtype == column.dtype


@pytest.mark.parametrize("shape", SIZES)
def test_match_equals_the_reference_to_the_bit(instruction_set, shape):
    frame, reference, _, _ = world(9, shape, "noise")
    patches = np.argwhere(np.ones(cell_grid(*shape))).astype(np.int32, order="C")
    base = np.random.default_rng(2).integers(-9, 9, patches.shape, np.int32)
    for radius in (0, 3, MAX_SHIFT):
        chosen = slice(None) if radius < 5 else slice(2)
        given = frame, reference, patches[chosen], base[chosen], radius, GAIN_ONE + 99 * radius
        for found, wanted in zip(match(*given), match_reference(*given), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_reads_a_view_of_a_larger_frame_in_place():
    frame, low, high, shifts = world(1, (128, 192), "noise")
    whole = np.zeros((200, 300), np.uint8)
    view = whole[11:139, 7:199]
    view[:] = frame
    found = scan(view, low, high, shifts, levels=(9, 9), contrasts=[9] * 4)
    wanted = scan(frame, low, high, shifts, levels=(9, 9), contrasts=[9] * 4)
    np.testing.assert_array_equal(found.outside, wanted.outside)
    np.testing.assert_array_equal(found.ridge, wanted.ridge)


def good_part(shape=(192, 256)):
    random = np.random.default_rng(4)
    part = np.full(shape, 100.0) + random.normal(0, 2, shape)
    return part.round().astype(np.uint8)


def learned(part, margin):
    means = block_means(part).astype(int)
    low, high = (means - margin).clip(0, 255), (means + margin).clip(0, 255)
    # A block that starts in the last row or column is half out of view.
    low[-1], low[:, -1], high[-1], high[:, -1] = 0, 0, 255, 255
    return to_planes(low.astype(np.uint8), 0), to_planes(high.astype(np.uint8), 255)


def test_a_mark_of_two_pixels_leaves_the_envelope_wherever_it_lies():
    part = good_part()
    shifts = np.zeros((3, 4, 2), np.int32)
    for y, x in ((70, 70), (71, 70), (70, 71), (71, 71), (127, 191)):
        frame = part.copy()
        frame[y : y + 2, x : x + 2] -= 80
        cells = scan(frame, *learned(part, 8), shifts, levels=(9, 65), contrasts=[20] * 4)
        cell = y // 64, x // 64
        assert cells.slight[cell] >= 1
        assert cells.outside[cell] == 1
        assert cells.outside.sum() == 1


def test_a_mark_of_three_pixels_fills_a_block_that_starts_at_even_pixels():
    part = good_part()
    shifts = np.zeros((3, 4, 2), np.int32)
    for y, x in ((70, 70), (71, 70), (70, 71), (71, 71)):
        frame = part.copy()
        frame[y : y + 3, x : x + 3] -= 60
        cells = scan(frame, *learned(part, 8), shifts, levels=(12, 12), contrasts=[20] * 4)
        assert cells.outside[1, 1] >= 1
        assert cells.peak[1, 1] >= 30
        assert cells.outside.sum() == cells.outside[1, 1]


def test_a_part_that_moved_is_compared_where_it_was():
    wide = np.random.default_rng(6).integers(0, 255, (300, 400), np.uint8)
    part, moved = wide[40:232, 40:296], wide[33:225, 49:305]
    shifts = np.full((3, 4, 2), (7, -9), np.int32)
    assert (
        scan(moved, *learned(part, 0), 0 * shifts, levels=(9, 9), contrasts=[9] * 4).outside.sum()
        > 5000
    )
    cells = scan(moved, *learned(part, 0), shifts, levels=(0, 0), contrasts=[9] * 4)
    assert cells.outside.sum() == 0
    assert cells.seen.sum() == (192 - 8) / 2 * (256 - 10) / 2  # the rest was out of view then
    patches = np.array([[1, 1], [1, 2]], np.int32)
    sums, _ = match(moved, to_planes(block_means(part), 0), patches, 0 * patches, 10)
    assert (sums[:, 17, 1] == 0).all()
    assert (sums == 0).sum() == 2


@pytest.mark.parametrize(
    ("direction", "step"),
    [("horizontal", (0, 1)), ("vertical", (1, 0)), ("falling", (1, 1)), ("rising", (-1, 1))],
)
@pytest.mark.parametrize("levels", [-25, 25])
def test_a_scratch_is_a_ridge_of_its_direction(direction, step, levels):
    part = good_part()
    low, high = learned(part, 255)
    low[:], high[:] = 2, 254
    for k in range(50):
        y, x = 96 + step[0] * (k - 25), 70 + step[1] * k
        part[y - 1 : y + 2, x - 1 : x + 2] = 100 + levels
    still = np.zeros((3, 4, 2), np.int32)
    found = {}
    for name in DIRECTIONS:
        contrasts = [10 if other == name else 255 for other in DIRECTIONS]
        cells = scan(part, low, high, still, levels=(255, 255), contrasts=contrasts)
        found[name] = cells.ridge.sum()
        assert cells.outside.sum() == 0
    across = DIRECTIONS[DIRECTIONS.index(direction) ^ 1]
    assert found[direction] >= 20
    assert found[across] <= 4


def test_a_ridge_that_good_parts_have_is_not_counted():
    part = good_part()
    part[90:93, 20:200] = 160
    low, high = learned(part, 20)
    still = np.zeros((3, 4, 2), np.int32)
    stands = ridges(block_means(part))
    assert stands.shape == (4, 192, 256)
    assert stands[0, 91, 100] > 20
    known = to_planes((stands.max(0) > 5).astype(np.uint8), 0)
    found = [
        scan(part, bound, high, still, levels=(255, 255), contrasts=[10] * 4).ridge
        for bound in (low & 254, low & 254 | known)
    ]
    assert found[0][1].sum() > 60
    assert found[1].sum() == 0


def test_an_edge_is_no_ridge():
    part = np.full((128, 128), 40, np.uint8)
    part[:, 61:] = 200
    low, high = learned(part, 20)
    cells = scan(part, low, high, np.zeros((2, 2, 2), np.int32), levels=(0, 0), contrasts=[5] * 4)
    assert cells.ridge.sum() == 0


def test_a_stain_shifts_its_cells_mean_alone():
    part = good_part()
    frame = part.copy()
    frame[64:128, 128:192] += 3
    cells = scan(
        frame, *learned(part, 20), np.zeros((3, 4, 2), np.int32), levels=(0, 0), contrasts=[255] * 4
    )
    assert cells.outside.sum() == 0
    mean = cells.excess / cells.seen
    assert mean[1, 2] == pytest.approx(3, abs=0.1)
    mean[1, 2] = 0
    assert np.abs(mean).max() == 0


def test_a_darker_lamp_is_made_up_for_by_a_gain():
    part = good_part()
    darker = (part * 0.8).round().astype(np.uint8)
    still = np.zeros((3, 4, 2), np.int32)
    given = {"levels": (2, 2), "contrasts": [255] * 4}
    assert scan(darker, *learned(part, 0), still, **given).slight.sum() > 9000
    cells = scan(darker, *learned(part, 0), still, **given, gain=round(GAIN_ONE / 0.8))
    assert cells.slight.sum() == 0
    patches = np.array([[1, 1]], np.int32)
    planes = to_planes(block_means(part), 0)
    bright = [match(image, planes, patches, 0 * patches, 0)[1][0] for image in (part, darker)]
    assert bright[1] / bright[0] == pytest.approx(0.8, abs=0.002)


def test_what_the_envelope_leaves_open_is_not_looked_at():
    part, frame = good_part(), texture(3, (192, 256), "noise")
    low, high = learned(part, 3)
    low[:], high[:] = 0, 255
    cells = scan(frame, low, high, np.zeros((3, 4, 2), np.int32), levels=(0, 0), contrasts=[0] * 4)
    assert all(not column.any() for column in vars(cells).values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frame": np.zeros((64, 64), np.float32)}, "frame is float32"),
        ({"frame": np.zeros((64, 63), np.uint8)}, "64 or more"),
        ({"frame": np.zeros((128, 256), np.uint8)[:, ::2]}, "rows in one piece"),
        ({"low": np.zeros((4, 9, 9), np.uint8)}, "low is uint8"),
        ({"high": np.zeros((4, 128, 128), np.int8)}, "high is int8"),
        ({"shifts": np.zeros((2, 2, 2), np.int64)}, "shifts is int64"),
        ({"shifts": np.full((2, 2, 2), MAX_SHIFT + 1, np.int32)}, "beyond 30"),
        ({"levels": (0, 256)}, "levels="),
        ({"levels": (2, 1)}, "levels="),
        ({"gain": 1 << 16}, "gain=65536"),
        ({"contrasts": [0, 0, -1, 0]}, "contrasts="),
    ],
)
def test_scan_refuses_what_it_cannot_read(change, told):
    frame, low, high, shifts = world(3, (128, 128), "smooth")
    given = {"frame": frame, "low": low, "high": high, "shifts": shifts}
    with pytest.raises(ValueError, match=told):
        scan(**(given | {"levels": (1, 1), "contrasts": [1] * 4} | change))


@pytest.mark.parametrize(
    ("patches", "radius", "told"),
    [
        ([[0, 2]], 1, "outside the cells"),
        ([[-1, 0]], 1, "outside the cells"),
        ([[0, 0]], 31, "radius=31"),
    ],
)
def test_match_refuses_what_it_cannot_read(patches, radius, told):
    frame, reference, _, _ = world(3, (128, 128), "smooth")
    patches = np.array(patches, np.int32)
    with pytest.raises(ValueError, match=told):
        match(frame, reference, patches, 0 * patches, radius)


def test_planes_hold_every_value_once():
    values = np.random.default_rng(1).integers(1, 250, (67, 70), np.uint8)
    planes = to_planes(values, 0)
    assert planes.shape == (4, 2 * CELL // 2 + 32, 2 * CELL // 2 + 32)
    assert planes[3, 16 + 5, 16 + 9] == values[11, 19]
    assert (planes > 0).sum() == values.size
