from collections import Counter

import numpy as np

from kits.defect.line.files import quantiles
from kits.defect.line.report_pictures import MAX_BARS, heat_map, latency_bars, timeline
from kits.defect.line.tally import CameraTally


def camera(flagged=(), defects=(), looked=4):
    zeros = np.zeros((3, 4), np.int64)
    tally = CameraTally(Counter(), zeros.copy(), zeros.copy(), (192, 256), num_looked=looked)
    for place in flagged:
        tally.flagged[place] += 1
    for place in defects:
        tally.defects[place] += 1
    return tally


def test_a_heat_map_shows_what_was_flagged_and_where_defects_were():
    tally = camera([(0, 1), (0, 1), (2, 3)], [(2, 3)])
    tally.background = np.zeros((24, 32), np.uint8)
    picture = heat_map(tally)
    assert 'viewBox="0 0 256 192"' in picture
    assert picture.count("<image") == 1
    assert "flagged in 50.0 % of parts" in picture
    assert "flagged in 25.0 % of parts" in picture
    assert picture.count("<circle") == 1
    assert 'cx="224" cy="160"' in picture


def test_a_camera_without_a_frame_has_an_empty_map():
    picture = heat_map(camera(looked=0))
    assert "<image" not in picture
    assert "<circle" not in picture


def test_a_long_run_is_drawn_in_fewer_bars():
    seconds = {second: Counter(OK=3, NG=1) for second in range(1000)}
    picture = timeline(seconds)
    assert picture.count("<rect") <= 2 * MAX_BARS
    assert "5 s each" in picture
    assert "at most 4 parts per second" in picture
    assert "No part" in timeline({})


def test_where_the_time_goes_is_drawn_to_scale():
    stages = {"captured": {"p50": 5.0}, "detected": {"p50": 20.0}}
    picture = latency_bars(stages, {"p50": 25.0, "p90": 40.0, "p99": 100.0})
    assert "detector 20.0 ms" in picture
    assert "p99 100.0 ms" in picture
    assert latency_bars({}, {}) == ""


def test_quantiles_of_nothing_are_empty():
    assert quantiles([]) == {}
    assert quantiles([1.0, 3.0])["p50"] == 2.0
