from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schedule.placement import balance, bound

OPPOSITE = {("a", "x"): 0.002, ("a", "y"): 0.010, ("b", "x"): 0.010, ("b", "y"): 0.002}


def test_one_model_on_one_device_is_its_speed():
    found = bound({"a": 1.0}, {("a", "x"): 0.004}, {"x": 2})
    assert found.rate == pytest.approx(500.0)
    assert found.share == {("a", "x"): pytest.approx(1.0)}
    assert found.load == {"x": pytest.approx(1.0)}


def test_devices_with_opposite_strengths_each_do_what_they_are_good_at():
    found = bound({"a": 0.5, "b": 0.5}, OPPOSITE, {"x": 1, "y": 1})
    assert found.rate == pytest.approx(1000.0)
    assert found.share["a", "x"] == found.share["b", "y"] == pytest.approx(1.0)


def test_a_mix_need_not_sum_to_one():
    thin = bound({"a": 1, "b": 3}, OPPOSITE, {"x": 1, "y": 1})
    assert bound({"a": 0.25, "b": 0.75}, OPPOSITE, {"x": 1, "y": 1}).rate == pytest.approx(
        thin.rate
    )


def test_a_model_nobody_asks_for_takes_no_device():
    found = bound({"a": 1.0, "b": 0.0}, OPPOSITE, {"x": 1, "y": 1})
    assert found.rate == pytest.approx(500 + 100)


def test_a_model_that_runs_nowhere_is_named():
    with pytest.raises(ValueError, match=r"model 'c' has no cost on any of \['x'\]"):
        bound({"a": 1.0, "c": 1.0}, {("a", "x"): 0.1}, {"x": 1})
    with pytest.raises(ValueError, match="model 'a' has no cost"):
        balance({"a": 1.0}, {("a", "x"): 0.1}, {"x": 0})


def by_force(mix, costs, steps=20):
    """The best rate over all splits of two models between two devices, on a grid."""
    best = 0.0
    for part_a, part_b in product(range(steps + 1), repeat=2):
        a, b = part_a / steps, part_b / steps
        x = mix["a"] * a * costs["a", "x"] + mix["b"] * b * costs["b", "x"]
        y = mix["a"] * (1 - a) * costs["a", "y"] + mix["b"] * (1 - b) * costs["b", "y"]
        best = max(best, 1 / max(x, y))
    return best


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.001, 0.1), min_size=4, max_size=4),
    st.floats(0.1, 0.9),
)
def test_no_split_is_better_than_the_bound_and_some_split_comes_close(seconds, part):
    costs = dict(zip(OPPOSITE, seconds, strict=True))
    mix = {"a": part, "b": 1 - part}
    found = bound(mix, costs, {"x": 1, "y": 1})
    forced = by_force(mix, costs)
    assert forced <= found.rate * (1 + 1e-6)
    assert forced >= found.rate * 0.9  # the grid's step
    for kind in "xy":
        used = sum(found.rate * mix[m] * found.share[m, kind] * costs[m, kind] for m in "ab")
        assert used == pytest.approx(found.load[kind], abs=1e-6)
        assert used <= 1 + 1e-6


def test_at_little_load_each_model_goes_where_it_is_fastest():
    found = balance({"a": 1.0, "b": 1.0}, OPPOSITE, {"x": 1, "y": 1})
    assert found.share["a", "x"] == found.share["b", "y"] == pytest.approx(1.0)
    assert found.dearness["a", "x"] == pytest.approx(1.0)
    assert found.dearness["a", "y"] == pytest.approx(5.0)


def test_under_load_the_fast_device_is_left_to_who_loses_most_elsewhere():
    # Both are faster on x, b by far.
    costs = {("a", "x"): 0.004, ("a", "y"): 0.005, ("b", "x"): 0.004, ("b", "y"): 0.040}
    found = balance({"a": 150.0, "b": 220.0}, costs, {"x": 1, "y": 1})
    assert found.share["b", "x"] == pytest.approx(1.0)
    assert found.share["a", "y"] == pytest.approx(1.0)
    assert found.dearness["a", "y"] == pytest.approx(1.0)
    assert found.dearness["b", "y"] > 2


def test_a_group_that_limits_nothing_has_a_price_too():
    # Two worlds that share no device: the second is far from full.
    costs = {("a", "x"): 0.01, ("b", "y"): 0.001, ("b", "z"): 0.002}
    found = balance({"a": 95.0, "b": 95.0}, costs, {"x": 1, "y": 1, "z": 1})
    assert found.share["b", "y"] == pytest.approx(1.0)
    assert found.dearness["b", "z"] == pytest.approx(2.0)


def test_more_than_there_is_is_spread_as_well():
    found = balance({"a": 5000.0, "b": 10.0}, OPPOSITE, {"x": 1, "y": 1})
    for model in "ab":
        assert sum(found.share[model, kind] for kind in "xy") == pytest.approx(1.0)
