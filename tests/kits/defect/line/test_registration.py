import numpy as np
import pytest

from kits.defect.line.registration import SEARCH_PX, Registration, choose_patches

MARGIN = 40


def surface(height, width, seed=0):
    """Spots and lines of many sizes on a flat plate, with room around."""
    rng = np.random.default_rng(seed)
    height, width = height + 2 * MARGIN, width + 2 * MARGIN
    plate = np.full((height, width), 120.0)
    for _ in range(height * width // 900):
        y, x = rng.integers(0, height - 20), rng.integers(0, width - 20)
        plate[y : y + rng.integers(3, 20), x : x + rng.integers(3, 20)] += rng.normal(0, 40)
    return plate


def view(plate, down=0.0, right=0.0, turn=0.0, seed=1):
    """What a camera sees when the plate lies further down and right, turned about the middle."""
    height, width = plate.shape[0] - 2 * MARGIN, plate.shape[1] - 2 * MARGIN
    y, x = np.mgrid[:height, :width].astype(np.float64)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    y, x = y - turn * (x - cx) - down, x + turn * (y - cy) - right
    y, x = y + MARGIN, x + MARGIN
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - top, x - left
    seen = (
        plate[top, left] * (1 - fy) * (1 - fx)
        + plate[top + 1, left] * fy * (1 - fx)
        + plate[top, left + 1] * (1 - fy) * fx
        + plate[top + 1, left + 1] * fy * fx
    )
    noise = np.random.default_rng(seed).normal(0, 2, seen.shape)
    return (seen + noise).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("size", [(640, 640), (500, 1000), (1300, 1600)])
@pytest.mark.parametrize("move", [(0.0, 0.0), (7.0, -12.0), (-3.4, 0.3), (19.0, 19.0)])
def test_finds_how_a_part_has_moved(size, move):
    plate = surface(*size)
    placement = Registration(view(plate)).locate(view(plate, *move, seed=5))
    assert placement.shift_px == pytest.approx(move, abs=0.45)
    assert np.abs(placement.shifts - np.array(move)).max() <= 1
    assert placement.mismatch < 8


def test_a_part_that_is_turned_has_its_own_shift_in_each_cell():
    plate = surface(900, 1400)
    turn = 0.004  # 2.8 px at the ends
    placement = Registration(view(plate)).locate(view(plate, 2.0, 1.0, turn, seed=3))
    rows, columns, _ = placement.shifts.shape
    y, x = np.mgrid[:rows, :columns] * 64 + 32
    wanted = np.stack([2 + turn * (x - 700), 1 - turn * (y - 450)], -1)
    off = np.abs(placement.shifts - wanted)
    assert np.quantile(off, 0.98) <= 1.1
    assert placement.shift_px == pytest.approx((2, 1), abs=0.45)


def test_follows_a_part_that_drifts_beyond_one_frames_reach():
    plate = surface(640, 640)
    follower = Registration(view(plate), mismatch_levels=20.0)
    for step in range(12):
        placement = follower.locate(view(plate, 1.8 * step, -1.5 * step, seed=step))
        assert placement.shift_px == pytest.approx((1.8 * step, -1.5 * step), abs=0.45)


@pytest.mark.parametrize("jump", [3, 4, 5, 6])
def test_a_jump_to_the_end_of_the_frames_reach_is_looked_for_further(jump):
    plate = 120 + (surface(640, 640) - 120) / 8  # so faint that a pixel off makes little difference
    follower = Registration(view(plate), mismatch_levels=20.0)
    follower.locate(view(plate, 1.0, 0.0))
    placement = follower.locate(view(plate, 1.0, -jump, seed=9))
    assert placement.shift_px == pytest.approx((1.0, -jump), abs=0.45)


def test_finds_a_part_again_after_one_that_jumped_and_one_that_is_missing():
    plate = surface(640, 640)
    follower = Registration(view(plate), mismatch_levels=20.0)
    follower.locate(view(plate, 1.0, 1.0))
    assert follower.locate(view(plate, -16.0, 15.0)).shift_px == pytest.approx((-16, 15), abs=0.45)
    nothing = np.random.default_rng(3).integers(0, 255, (640, 640), np.uint8)
    good = follower.locate(view(plate, -16.0, 15.0)).mismatch
    assert follower.locate(nothing).mismatch > 5 * good
    assert follower.locate(view(plate, 4.0, -9.0)).shift_px == pytest.approx((4, -9), abs=0.45)


def test_a_defect_does_not_move_the_part():
    plate = surface(640, 640)
    frame = view(plate, 3.0, -2.0)
    frame[200:330, 150:300] = 20
    placement = Registration(view(plate)).locate(frame)
    assert placement.shift_px == pytest.approx((3, -2), abs=0.45)
    assert np.abs(placement.shifts - np.array([3, -2])).max() <= 1


def test_a_part_without_any_texture_stays_where_it_is():
    flat = np.full((200, 300), 128, np.uint8)
    placement = Registration(flat).locate(flat)
    assert not placement.shifts.any()
    assert placement.mismatch == 0


def test_patches_are_the_textured_cells_of_their_groups():
    template = np.full((640, 1280), 100, np.uint8)
    template[130:180, 200:240] = np.random.default_rng(1).integers(0, 255, (50, 40), np.uint8)
    patches = choose_patches(template)
    assert patches.side == 2
    assert patches.cells.shape == (5, 10, 2)
    assert patches.cells[1, 1].tolist() == [2, 3]
    anchors = patches.anchors.tolist()
    assert [2, 3] in anchors
    assert len(set(map(tuple, anchors))) == len(anchors) == 25
    assert all(0 < row < 9 and 0 < column < 19 for row, column in anchors)


def test_search_reaches_as_far_as_it_says():
    plate = surface(640, 640)
    move = (SEARCH_PX - 2.0, -SEARCH_PX + 2.0)
    placement = Registration(view(plate)).locate(view(plate, *move))
    assert placement.shift_px == pytest.approx(move, abs=0.45)
