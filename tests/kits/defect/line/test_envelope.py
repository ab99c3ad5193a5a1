import numpy as np

from kits.defect.line.envelope import BORDER_PX, OFF, Envelope, RidgeMap, align, learn_envelope


def test_align_brings_each_cell_back_and_says_what_was_in_view():
    part = np.random.default_rng(1).integers(0, 255, (128, 192), np.uint8)
    moved = np.roll(part, (5, -7), (0, 1))
    shifts = np.full((2, 3, 2), (5, -7), np.int32)
    values, is_seen = align(moved, shifts)
    np.testing.assert_array_equal(values[is_seen], part[is_seen])
    # Of what lies 5 further down, the last 5 rows are out of view, and one more is half a block.
    assert is_seen[:122, 7:].all()
    assert not is_seen[122:].any()
    assert not is_seen[:, :7].any()


def test_envelope_holds_what_was_seen_and_some_deviations_more():
    blocks = np.full((9, 4, 5), 100, np.uint8)
    blocks[:, 1, 1] = [90, 110, 100, 95, 105, 100, 100, 100, 100]
    is_seen = np.ones(blocks.shape, bool)
    envelope = learn_envelope(blocks, is_seen, 3.0)
    assert (envelope.low[0, 0], envelope.high[0, 0]) == (100, 100)
    spread = 3 * np.std(blocks[:, 1, 1], ddof=1)
    assert envelope.low[1, 1] == np.floor(100 - spread)
    assert envelope.high[1, 1] == np.ceil(100 + spread)
    narrow = learn_envelope(blocks, is_seen, 0.0)
    assert (narrow.low[1, 1], narrow.high[1, 1]) == (90, 110)


def test_envelope_is_open_where_half_of_the_parts_were_never_seen():
    blocks = np.full((4, 2, 2), 50, np.uint8)
    is_seen = np.ones(blocks.shape, bool)
    is_seen[:3, 0, 0] = False
    is_seen[:2, 1, 1] = False
    blocks[0, 1, 1] = 250  # out of view: it must not count
    envelope = learn_envelope(blocks, is_seen, 3.0)
    assert (envelope.low[0, 0], envelope.high[0, 0]) == (0, 255)
    assert (envelope.low[1, 1], envelope.high[1, 1]) == (50, 50)


def test_two_black_and_white_parts_give_black_white_or_both():
    blocks = np.array([[[0, 255, 0, 255]], [[0, 255, 255, 255]]], np.uint8)
    envelope = learn_envelope(blocks, np.ones(blocks.shape, bool), 0.0)
    np.testing.assert_array_equal(envelope.low, [[0, 255, 0, 255]])
    np.testing.assert_array_equal(envelope.high, [[0, 255, 255, 255]])


def test_wider_by_a_pixel_in_each_direction():
    low, high = np.full((5, 6), 100, np.uint8), np.full((5, 6), 120, np.uint8)
    low[2, 3], high[0, 0] = 10, 200
    wider = Envelope(low, high).widen()
    assert (wider.low[1:4, 2:5] == 10).all()
    assert (wider.low == 10).sum() == 9
    assert (wider.high[:2, :2] == 200).all()
    assert (wider.high == 200).sum() == 4


def test_marks_where_good_parts_have_ridges_and_changes_no_bound_by_more_than_a_level():
    template = np.full((80, 90), 100, np.uint8)
    template[40:43] = 130
    low = np.random.default_rng(1).integers(0, 200, template.shape, np.uint8)
    high = np.maximum(low, 210)
    low[20, 30:33], high[20, 30:33] = (0, 0, 7), (255, 200, 200)
    ridges = RidgeMap.of(template)
    marked = ridges.mark(Envelope(low, high), (10, 10, 10, 10))
    is_odd = marked.low % 2 == 1
    assert is_odd[40:42, 20:70].all()
    assert not is_odd[10:34, 20:70].any()
    assert not is_odd[50:70, 20:70].any()
    assert is_odd[:BORDER_PX].all()
    assert is_odd[:, -BORDER_PX:].all()
    assert np.abs(marked.low.astype(int) - low).max() == 1
    assert ((marked.low == 0) & (high == 255))[20, 30]
    np.testing.assert_array_equal(marked.high, high)
    vertical_alone = ridges.mark(Envelope(low, high), (OFF, 10, OFF, OFF))
    assert not (vertical_alone.low[40:42, 20:70] % 2 == 1).any()
