import numpy as np
import pytest

from kits.defect.line.measure import grow, measure
from tests.kits.defect.line.lines import good_frame, with_line


@pytest.mark.parametrize("end", [(160, 100), (150, 150), (100, 160), (140, 180)])
@pytest.mark.parametrize("grey", [40, 230])
def test_a_line_is_as_long_and_wide_as_it_was_drawn(end, grey):
    frame = with_line(good_frame(), (100, 100), end, grey)
    box = (98.0, 98.0, end[0] + 3.0, end[1] + 3.0)
    place = grow(box, frame.shape)
    part = frame[place[1] : place[3], place[0] : place[2]]
    size = measure(
        part, (box[0] - place[0], box[1] - place[1], box[2] - place[0], box[3] - place[1])
    )
    length = np.hypot(end[0] - 100, end[1] - 100)
    assert size.length == pytest.approx(length + 3, abs=3)
    # A square pen of 3 px draws 3 to 4.3 wide.
    assert 2.5 < size.width < 4.6
    assert size.area == pytest.approx(size.length * size.width)


def test_a_disc_has_its_area():
    frame = good_frame(1)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    frame[(x - 60) ** 2 + (y - 60) ** 2 <= 10**2] = 60
    part = frame[40:81, 40:81]
    size = measure(part, (9.0, 9.0, 32.0, 32.0))
    assert size.area == pytest.approx(317, abs=8)
    assert size.length == pytest.approx(21, abs=1.5)
    assert size.width == pytest.approx(16, abs=2)


def test_where_nothing_stands_out_the_box_is_the_size():
    part = np.full((40, 60), 100, np.uint8)
    size = measure(part, (8.0, 8.0, 50.0, 30.0))
    assert (size.length, size.width, size.area) == (42.0, 22.0, 924.0)


def test_a_box_at_the_border_grows_inside_the_frame():
    assert grow((0.0, 3.2, 99.5, 50.0), (50, 100)) == (0, 0, 100, 50)
    assert grow((40.0, 20.0, 50.0, 30.0), (50, 100)) == (32, 12, 58, 38)


def test_a_box_that_is_the_whole_part_is_the_size():
    size = measure(np.zeros((5, 7), np.uint8), (0.0, 0.0, 7.0, 5.0))
    assert (size.length, size.width) == (7.0, 5.0)
