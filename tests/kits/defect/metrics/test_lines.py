from dataclasses import replace

import numpy as np

from kits.defect.data.image_set import LabelledImage
from kits.defect.detecting import Found
from kits.defect.metrics.lines import covered, found_shares, hits, point_hits
from kits.defect.metrics.matching import Scored


def scratch(found, start=(10, 10), end=(90, 50), scores=None):
    """A diagonal scratch and what was found of it."""
    segment = np.array([[start, end]], np.float32)
    box = np.concatenate([segment.min(1), segment.max(1)], 1)
    image = LabelledImage(
        "a", np.zeros((100, 100), np.uint8), box, np.zeros(1, np.int64), segments_px=segment
    )
    boxes = np.array(found, np.float32).reshape(-1, 4)
    scores = np.full(len(boxes), 0.9) if scores is None else np.array(scores)
    return Scored(image, Found(boxes, scores, np.zeros(len(boxes), np.int64)))


def test_half_of_a_scratch_is_half_of_its_length():
    one = scratch([(10, 10, 50, 30)])
    # Found boxes count four pixels wider.
    assert 0.5 <= found_shares(one, 0.5)[0] < 0.57
    assert not hits(scratch([(10, 70, 20, 90)]), 0.5).any()


def test_overlapping_boxes_count_once():
    both = found_shares(scratch([(10, 10, 60, 35), (40, 25, 90, 50)]), 0.5)[0]
    assert both == 1


def test_a_found_piece_in_the_middle_of_the_line_is_a_hit():
    # Its overlap with the whole box is far below a third.
    assert hits(scratch([(46, 27, 54, 33)]), 0.5).tolist() == [True]


def test_a_box_beside_the_line_but_in_its_box_is_no_hit():
    assert point_hits(scratch([(75, 15, 85, 22)]), 0.5).tolist() == [False]


def test_low_scores_are_not_found():
    one = scratch([(10, 10, 90, 50)], scores=[0.3])
    assert hits(one, 0.5).tolist() == [False]
    assert hits(one, 0.2).tolist() == [True]


def test_steep_lines_are_covered_too():
    start, end = np.array([20.0, 10.0]), np.array([20.0, 90.0])
    assert abs(covered(start, end, np.array([[18.0, 10.0, 22.0, 46.0]])) - 0.5) < 1e-9
    assert covered(start, end, np.array([[40.0, 10.0, 60.0, 90.0]])) == 0


def test_defects_without_ends_are_no_lines():
    one = scratch([(10, 10, 90, 50)])
    dent = replace(one.truth, segments_px=np.full((1, 2, 2), np.nan, np.float32))
    assert len(found_shares(Scored(dent, one.found), 0.5)) == 0
    assert hits(Scored(dent, one.found), 0.5).tolist() == [True]
