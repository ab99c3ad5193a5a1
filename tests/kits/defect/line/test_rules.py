import numpy as np

from kits.defect.line.recipe import Recipe, Rule, Zone
from kits.defect.line.rules import contains, ignored_cells, judge, zones_at
from kits.defect.line.verdict import Defect

SQUARE = ((10.0, 10.0), (20.0, 10.0), (20.0, 20.0), (10.0, 20.0))


def defect(kind="scratch", length=1.0, width=0.2, area=0.2, zones=()):
    return Defect(kind, 0.9, (0, 0, 1, 1), length, width, area, zones)


def recipe(*rules):
    zones = (Zone("edge", SQUARE),)
    return Recipe("plate", 100, 100, 0.1, 0.2, zones=zones, rules=rules)


def reason(defects, *rules):
    return judge(defects, recipe(*rules))[1]


def test_without_a_rule_any_defect_is_bad():
    assert reason([defect()]) == "scratch: no rule tolerates it"
    assert reason([]) == ""


def test_limits_are_in_mm():
    rules = (Rule("scratch", max_length_mm=2.0, max_width_mm=0.3, max_area_mm2=0.5),)
    assert reason([defect()], *rules) == ""
    assert reason([defect(length=2.5)], *rules) == "scratch: length_mm=2.5 is over 2 for scratch"
    assert "width_mm=0.4 is over 0.3" in reason([defect(width=0.4)], *rules)
    assert "area_mm2=0.6 is over 0.5" in reason([defect(area=0.6)], *rules)
    assert reason([defect("dent")], *rules) == "dent: no rule tolerates it"


def test_every_rule_that_fits_must_be_kept():
    rules = (Rule(max_length_mm=5.0), Rule("scratch", "edge", max_length_mm=1.0))
    assert reason([defect(length=3.0)], *rules) == ""
    assert "over 1 for scratch in edge" in reason([defect(length=3.0, zones=("edge",))], *rules)
    assert "over 5 for any defect" in reason([defect("dent", length=6.0)], *rules)


def test_a_count_is_of_those_that_keep_the_other_limits():
    rules = (Rule("dent", max_length_mm=1.0, max_count=2),)
    assert reason([defect("dent")] * 2, *rules) == ""
    judged, told = judge([defect("dent")] * 3, recipe(*rules))
    assert told == "3 of dent, 2 are tolerated"
    assert all(one.breaks for one in judged)
    told = reason([defect("dent")] * 2 + [defect("dent", length=2.0)], *rules)
    assert told == "dent: length_mm=2 is over 1 for dent"


def test_a_zone_moves_with_the_part():
    zones = recipe().zones
    assert zones_at(15, 15, zones, (0, 0)) == zones
    assert zones_at(15, 15, zones, (8, 0)) == ()
    assert zones_at(23, 15, zones, (8, 0)) == zones


def test_a_polygon_that_is_not_convex():
    horseshoe = ((0, 0), (9, 0), (9, 9), (6, 9), (6, 3), (3, 3), (3, 9), (0, 9))
    x, y = np.array([1, 4, 8, 4, 20]), np.array([8, 8, 8, 1, 5])
    assert contains(horseshoe, x, y).tolist() == [True, False, True, True, False]


def test_cells_are_ignored_where_they_lie_wholly_in_ignored_zones():
    zone = Zone("clamp", ((0.0, 0.0), (130.0, 0.0), (130.0, 64.0), (0.0, 64.0)), is_ignored=True)
    seen = Zone("seen", ((0.0, 0.0), (900.0, 0.0), (900.0, 900.0)))
    found = ignored_cells((zone, seen), (2, 3), 64, (0, 0))
    assert found.tolist() == [[True, True, False], [False, False, False]]
    moved = ignored_cells((zone,), (2, 3), 64, (10, 0))
    assert moved.tolist() == [[False, True, False], [False, False, False]]
    assert not ignored_cells((seen,), (2, 3), 64, (0, 0)).any()
