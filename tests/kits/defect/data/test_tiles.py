import itertools
import math

import numpy as np
import pytest

from kits.defect.data.config import TilingConfig
from kits.defect.data.image_set import LabelledImage
from kits.defect.data.tiles import TiledImages, Window, cut, draw_epoch, windows

CFG = TilingConfig(size_px=100, overlap_px=20)
NOWHERE = [[math.nan, math.nan]] * 2


def labelled(boxes, segments=None, **more):
    pixels = np.arange(300 * 200, dtype=np.uint32).reshape(200, 300).astype(np.uint8)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    if segments is not None:
        more["segments_px"] = np.array(segments, np.float32)
    return LabelledImage("part", pixels, boxes, np.arange(len(boxes)), **more)


@pytest.mark.parametrize("size", [(300, 200), (100, 100), (90, 350), (101, 99), (3840, 2160)])
def test_tiles_cover_an_image_and_lie_inside(size):
    width, height = size
    seen = np.zeros((height, width), int)
    for x, y, w, h in windows(width, height, CFG):
        assert w <= 100
        assert h <= 100
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        seen[y : y + h, x : x + w] += 1
    assert seen.min() >= 1


def test_neighbours_share_the_overlap():
    starts = sorted({tile.x for tile in windows(3840, 2160, CFG)})
    assert max(b - a for a, b in itertools.pairwise(starts)) <= 80


def test_a_whole_image_is_one_tile_where_no_size_is_set():
    assert windows(300, 200, TilingConfig(size_px=None)) == [Window(0, 0, 300, 200)]


def test_a_box_inside_is_moved_and_its_truth_kept():
    image = labelled([[110, 30, 150, 40]], lengths_mm=np.array([4.0]), widths_mm=np.array([1.0]))
    tile = cut(image, Window(100, 0, 100, 100), CFG)
    assert tile.image.boxes_px.tolist() == [[10, 30, 50, 40]]
    assert tile.image.lengths_mm.tolist() == [4.0]
    np.testing.assert_array_equal(tile.image.pixels, image.pixels[:100, 100:200])
    assert len(tile.ignored_px) == 0


def test_a_box_mostly_inside_is_cut_and_one_mostly_outside_is_painted_over():
    image = labelled([[70, 10, 110, 20], [90, 50, 180, 60]], lengths_mm=np.array([4.0, 9.0]))
    tile = cut(image, Window(0, 0, 100, 100), CFG)
    assert tile.image.boxes_px.tolist() == [[70, 10, 100, 20]]
    assert tile.image.classes.tolist() == [0]
    assert np.isnan(tile.image.lengths_mm).all()
    assert tile.ignored_px.tolist() == [[90, 50, 100, 60]]
    assert np.ptp(tile.image.pixels[50:60, 90:100]) == 0
    assert (image.pixels[50:60, 90:100] != tile.image.pixels[50:60, 90:100]).any()


def test_paint_comes_from_the_template_where_there_is_one():
    template = np.full((200, 300), 7, np.uint8)
    image = labelled([[90, 50, 180, 60]], template=template)
    tile = cut(image, Window(0, 0, 100, 100), CFG)
    assert (tile.image.pixels[50:60, 90:100] == 7).all()


def test_a_long_line_is_kept_in_every_tile_with_the_length_inside():
    # 30 of 150 px inside: a fifth of its box, but long enough to be seen.
    image = labelled(
        [[70, 48, 220, 52]], [[[70, 50], [220, 50]]],
        lengths_mm=np.array([15.0]), widths_mm=np.array([0.2]),
    )  # fmt: skip
    tile = cut(image, Window(0, 0, 100, 100), CFG).image
    assert tile.boxes_px.tolist() == [[70, 48, 100, 52]]
    assert tile.lengths_mm == pytest.approx([3.0])
    assert tile.widths_mm == pytest.approx([0.2])
    assert tile.segments_px.tolist() == [[[70, 50], [100, 50]]]


def test_the_box_of_a_cut_diagonal_hugs_its_visible_part():
    image = labelled([[48, 48, 152, 152]], [[[50, 50], [150, 150]]])
    tile = cut(image, Window(0, 0, 100, 200), CFG).image
    assert tile.boxes_px.tolist() == [[48, 48, 100, 102]]


def test_a_short_end_of_a_line_is_painted_over():
    image = labelled([[90, 48, 220, 52]], [[[90, 50], [220, 50]]])
    tile = cut(image, Window(0, 0, 100, 100), CFG)
    assert len(tile.image.boxes_px) == 0
    assert tile.ignored_px.tolist() == [[90, 48, 100, 52]]


def test_paint_spares_boxes_that_count():
    image = labelled([[90, 50, 180, 60], [80, 40, 96, 58]])
    tile = cut(image, Window(0, 0, 100, 100), CFG)
    np.testing.assert_array_equal(tile.image.pixels[40:58, 80:96], image.pixels[40:58, 80:96])


class One:
    name, class_names, has_template, fingerprint = "one", ("a", "b"), False, "f"

    def names(self, split):
        return ["part"] if split == "train" else []

    def load(self, name):
        return labelled([[110, 30, 150, 40]])


def test_tiles_are_an_image_set():
    images = TiledImages(One(), CFG)
    names = images.names("train")
    assert names[:2] == ["part@0,0,100,100", "part@67,0,100,100"]
    assert len(names) == len(windows(300, 200, CFG))
    assert images.names("test") == []
    assert sum(len(images.load(name).boxes_px) for name in names) >= 1


def test_an_epoch_is_balanced_and_the_same_for_a_seed():
    classes = [np.array([0])] * 90 + [np.array([0, 1])] * 10 + [np.array([], int)] * 100
    even = TilingConfig(clean=0.25, balance=1.0)
    order = draw_epoch(classes, 2, even, 3, count=400)
    assert order.tolist() == draw_epoch(classes, 2, even, 3, count=400).tolist()
    assert order.tolist() != draw_epoch(classes, 2, even, 4, count=400).tolist()
    assert sum(len(classes[tile]) == 0 for tile in order) == 100
    rare = sum(1 in classes[tile] for tile in order)
    # Weight 1/10 for each of ten tiles against 1/100 for each of ninety.
    assert rare == pytest.approx(300 / 1.9, abs=2)
    alike = draw_epoch(classes, 2, TilingConfig(clean=None, balance=0.0), 3, count=200)
    assert sorted(alike.tolist()) == list(range(200))


def test_an_epoch_without_clean_tiles_or_without_defects_is_drawn_all_the_same():
    assert len(draw_epoch([np.array([0])] * 3, 1, TilingConfig(), 0, count=10)) == 10
    assert len(draw_epoch([np.array([], int)] * 3, 1, TilingConfig(), 0, count=10)) == 10
