import numpy as np
import pytest

from kits.defect.metrics.bootstrap import intervals
from kits.defect.metrics.proportions import lower_bound, upper_bound


@pytest.mark.parametrize(
    ("hits", "tries", "bound"),
    # What has to be inspected for 99.2 %, and for 99.9 %, to be proven.
    [(373, 373, 0.992), (1991, 2000, 0.992), (2995, 2995, 0.999)],
)
def test_the_numbers_that_prove_a_claim(hits, tries, bound):
    assert lower_bound(hits, tries) >= bound
    assert lower_bound(hits - 1, tries) < bound


def test_bounds_are_each_others_mirror():
    assert upper_bound(3, 50) == pytest.approx(1 - lower_bound(47, 50))
    assert lower_bound(0, 5) == 0
    assert upper_bound(5, 5) == 1


def test_the_bound_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = rng.binomial(60, 0.9, 2000)
    table = {k: lower_bound(int(k), 60) for k in np.unique(hits)}
    assert np.mean([table[k] <= 0.9 for k in hits]) >= 0.95


def test_what_is_no_proportion_is_refused():
    with pytest.raises(ValueError, match="count again"):
        lower_bound(3, 2)


def test_intervals_hold_the_mean_of_normal_numbers():
    values = np.random.default_rng(1).normal(5, 1, 400).tolist()
    found = intervals(values, lambda drawn: {"mean": float(np.mean(drawn))}, draws=400)
    assert found["mean.low"] < 5 < found["mean.high"]
    assert found["mean.high"] - found["mean.low"] == pytest.approx(2 * 1.96 / 20, rel=0.15)
