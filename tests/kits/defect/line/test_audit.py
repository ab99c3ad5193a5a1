import numpy as np
import pytest
from scipy.stats import binom

from kits.defect.line.audit import Audit


def audited(share, escapes, drawn=100, lost=0):
    audit = Audit(share)
    audit.add(drawn, lost, escapes)
    return audit


def test_nothing_drawn_says_nothing():
    assert Audit(0.1).estimate() is None
    assert audited(0.0, 0, drawn=0).estimate() is None


def test_all_drawn_is_a_count():
    assert audited(1.0, 7).estimate() == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(("share", "found"), [(0.1, 0), (0.1, 3), (0.01, 1), (0.5, 40)])
def test_limits_are_those_of_the_binomial(share, found):
    estimate, low, high = audited(share, found).estimate()
    assert estimate == pytest.approx(found / share)
    # Within the limits neither tail is rarer than 2.5 %; outside one is.
    assert binom.sf(found - 1, low, share) >= 0.025 - 1e-12
    assert binom.cdf(found, high, share) >= 0.025 - 1e-12
    assert binom.cdf(found, high + 1, share) < 0.025
    if low > found:
        assert binom.sf(found - 1, low - 1, share) < 0.025


def test_it_is_unbiased_and_its_limits_hold_as_often_as_they_say():
    random = np.random.default_rng(0)
    true, share = 200, 0.05
    estimates, held = [], 0
    for _ in range(400):
        estimate, low, high = audited(share, int(random.binomial(true, share))).estimate()
        estimates.append(estimate)
        held += low <= true <= high
    # 400 estimates with a deviation of 62 each: 3.1 of their mean.
    assert np.mean(estimates) == pytest.approx(true, abs=10)
    assert held / 400 > 0.93


def test_blocks_that_were_drawn_but_not_looked_at_lower_the_probability():
    audit = audited(0.1, 2, drawn=75, lost=25)
    assert audit.probability == pytest.approx(0.075)
    assert audit.estimate()[0] == pytest.approx(2 / 0.075)
    told = audit.to_json()
    assert told["lost_blocks"] == 25
    assert told["escapes_per_1000_parts"][0] == pytest.approx(2 / 0.075 * 1000, rel=1e-3)
