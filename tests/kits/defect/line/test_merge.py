import pytest

from kits.defect.line.merge import merge
from kits.defect.line.verdict import Found

SIZE = (1000, 2000)


def found(box, tile=(0, 0, 2000, 1000), score=0.9, kind=0):
    return Found(tuple(map(float, box)), score, kind, tile)


def boxes(*parts):
    return [one.box_px for one in merge(parts, SIZE)]


def test_nothing_is_nothing():
    assert merge([], SIZE) == []


def test_a_scratch_over_three_tiles_is_one():
    tiles = [(0, 0, 320, 320), (192, 0, 512, 320), (384, 0, 704, 320)]
    parts = [
        found((100, 100, 320, 110), tiles[0], 0.5),
        found((192, 104, 512, 118), tiles[1], 0.9),
        found((384, 112, 600, 125), tiles[2], 0.7),
    ]
    (one,) = merge(parts, SIZE)
    assert one.box_px == (100, 100, 600, 125)
    assert one.score == 0.9
    assert len(one.parts) == 3


def test_a_diagonal_cut_at_the_end_of_tiles_that_only_touch_is_one():
    first = found((250, 250, 319, 320), (0, 0, 320, 320))
    second = found((318, 318, 400, 400), (320, 320, 640, 640))
    assert boxes(first, second) == [(250, 250, 400, 400)]


def test_what_two_tiles_see_of_one_thing_is_one_also_where_one_sees_a_part():
    whole = found((100, 100, 140, 140), (0, 0, 320, 320))
    part = found((100, 100, 119, 140), (0, 0, 119, 320), 0.4)
    assert boxes(whole, part) == [(100, 100, 140, 140)]


def test_two_scratches_that_cross_in_one_tile_stay_two():
    assert len(boxes(found((100, 200, 300, 210)), found((190, 100, 200, 300)))) == 2


def test_neighbours_in_one_tile_stay_two():
    assert len(boxes(found((100, 100, 120, 120)), found((121, 100, 141, 120)))) == 2


def test_classes_stay_apart():
    assert len(boxes(found((100, 100, 140, 140)), found((100, 100, 140, 140), kind=1))) == 2


def test_what_ends_where_the_frame_ends_is_not_cut_there():
    first = found((1900, 100, 2000, 110), (1680, 0, 2000, 320))
    second = found((1890, 108, 1960, 130), (1680, 0, 2000, 320))
    assert len(boxes(first, second)) == 2


def test_the_best_score_comes_first():
    scores = [one.score for one in merge(
        [found((0, 0, 9, 9), score=0.3), found((50, 50, 60, 60), score=0.8)], SIZE
    )]  # fmt: skip
    assert scores == [0.8, pytest.approx(0.3)]
