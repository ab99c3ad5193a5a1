import json
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.schedule.costs import CostTable


def table(seconds):
    costs = CostTable("a test")
    costs.measure("m@1", "cpu", seconds)
    return costs


def test_a_pair_that_was_never_seen_is_unknown():
    costs = table({1: 0.01})
    assert costs.seconds("m@1", "gpu") is None
    assert costs.seconds("other@1", "cpu") is None
    assert costs.largest("m@1", "gpu") == 0


def test_between_measured_sizes_it_is_linear_and_beyond_them_it_goes_on():
    costs = table({1: 0.010, 4: 0.016, 8: 0.020})
    expected = {1: 0.010, 2: 0.012, 3: 0.014, 4: 0.016, 6: 0.018, 8: 0.020, 12: 0.024}
    for rows, seconds in expected.items():
        assert costs.seconds("m@1", "cpu", rows) == pytest.approx(seconds)


def test_one_size_alone_promises_nothing_of_batching():
    costs = table({4: 0.016})
    assert costs.seconds("m@1", "cpu", 1) == pytest.approx(0.016)
    assert costs.seconds("m@1", "cpu", 8) == pytest.approx(0.032)


@given(
    st.dictionaries(st.integers(1, 40), st.floats(1e-5, 10.0), min_size=1, max_size=6),
    st.integers(1, 64),
)
def test_a_larger_batch_never_takes_less(seconds, rows):
    curve = table(seconds).curve("m@1", "cpu", rows)
    assert curve[0] == 0.0
    assert len(curve) > rows
    assert all(a <= b for a, b in pairwise(curve))


@pytest.mark.parametrize("seconds", [{0: 0.1}, {1: 0.0}, {1: -1.0}, {1: nan}, {1: inf}])
def test_what_cannot_be_measured_is_refused(seconds):
    with pytest.raises(ValueError, match="is no measurement"):
        table(seconds)


def test_an_empty_measurement_is_refused():
    with pytest.raises(ValueError, match="are empty"):
        table({})


def test_an_unknown_pair_is_known_after_one_run():
    costs = CostTable()
    costs.observe("m@1", "cpu", 2, 0.02, "worker0")
    assert costs.seconds("m@1", "cpu", 2) == pytest.approx(0.02)
    assert costs.largest("m@1", "cpu") == 2


def test_a_size_beyond_those_measured_is_believed_at_once():
    costs = table({1: 0.010})
    assert costs.seconds("m@1", "cpu", 4) == pytest.approx(0.040)
    costs.observe("m@1", "cpu", 4, 0.013)
    assert costs.seconds("m@1", "cpu", 4) == pytest.approx(0.013)
    assert costs.seconds("m@1", "cpu", 2) == pytest.approx(0.011)


def test_one_hiccup_changes_little():
    costs = table({1: 0.010})
    costs.observe("m@1", "cpu", 1, 10.0, "worker0")
    assert costs.seconds("m@1", "cpu") * costs.factor("worker0") < 0.014


def test_a_slowed_device_is_told_from_its_kind():
    costs = table({1: 0.010})
    for _ in range(30):
        costs.observe("m@1", "cpu", 1, 0.040, "slow")
        for device in ("a", "b", "c"):
            costs.observe("m@1", "cpu", 1, 0.010, device)
    assert costs.factor("slow") > 2.5
    assert 0.8 < costs.factor("a") < 1.1
    assert costs.seconds("m@1", "cpu") < 0.016
    assert costs.seconds("m@1", "cpu") * costs.factor("slow") == pytest.approx(0.04, rel=0.1)


def test_a_model_that_became_slower_everywhere_moves_the_curve():
    costs = table({1: 0.010, 8: 0.024})
    for _ in range(200):
        costs.observe("m@1", "cpu", 1, 0.020)
    assert costs.seconds("m@1", "cpu", 1) == pytest.approx(0.020, rel=0.02)
    # Sizes that were not seen follow.
    assert costs.seconds("m@1", "cpu", 8) > 0.030


def test_a_doubted_factor_goes_back_to_one_and_a_forgotten_one_is_one():
    costs = table({1: 0.010})
    for _ in range(50):
        costs.observe("m@1", "cpu", 1, 0.080, "slow")
    before = costs.factor("slow")
    assert costs.doubt("slow") == pytest.approx(before**0.5)
    costs.forget_device("slow")
    assert costs.factor("slow") == 1.0


def test_a_curve_that_is_kept_sees_what_was_learnt():
    costs = table({1: 0.010})
    kept = costs.curve("m@1", "cpu", 4)
    for _ in range(100):
        costs.observe("m@1", "cpu", 1, 0.020)
    assert costs.curve("m@1", "cpu", 2) is kept
    assert kept[1] == pytest.approx(0.020, rel=0.1)


def test_a_clock_that_did_not_move_teaches_nothing():
    costs = table({1: 0.010})
    assert costs.observe("m@1", "cpu", 1, 0.0, "a") == 1.0
    assert costs.seconds("m@1", "cpu") == 0.010


def test_a_saved_table_comes_back_whole(tmp_path):
    costs = table({1: 0.010, 8: 0.024})
    costs.measure("n@2", "gpu", {1: 0.001})
    costs.observe("n@2", "gpu", 1, 0.002)
    path = tmp_path / "costs.json"
    path.write_text("old", encoding="utf-8")
    costs.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["costs.json"]
    again = CostTable.load(path)
    assert again.origin == "a test"
    assert again.pairs() == [("m@1", "cpu"), ("n@2", "gpu")]
    assert again.to_json() == costs.to_json() == json.loads(path.read_text(encoding="utf-8"))


def test_a_model_that_is_unloaded_is_forgotten():
    costs = table({1: 0.010})
    costs.measure("n@2", "cpu", {1: 0.001})
    costs.forget_model("m@1")
    assert costs.pairs() == [("n@2", "cpu")]
