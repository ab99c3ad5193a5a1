"""Growth: intervals that hold what they say, and no growth invented."""

import math

import numpy as np
import pytest

from kits.medical.results.growth import Earlier, compare, days_between, growth_rate
from kits.medical.results.uncertainty import log_sigma, sphere_diameter

NUM_PAIRS = 20_000


def noisy(volumes, random):
    """What readers would measure: log-normal with the CV of the true size."""
    sigma = np.array([log_sigma(volume, "solid") for volume in volumes])
    return volumes * np.exp(sigma * random.standard_normal(len(volumes)))


def simulate(doubling_days, seed, interval=365.0):
    """Pairs of measurements of nodules between 4 and 25 mm with a known doubling time."""
    random = np.random.default_rng(seed)
    before = np.pi / 6 * np.exp(random.uniform(np.log(4), np.log(25), NUM_PAIRS)) ** 3
    now = before * 2 ** (interval / doubling_days)
    pairs = zip(noisy(before, random), noisy(now, random), strict=True)
    return [growth_rate((a, "solid"), (b, "solid"), interval) for a, b in pairs]


def test_without_growth_at_most_five_in_a_hundred_are_called_growing():
    rates = simulate(math.inf, seed=0)
    growing = np.mean([rate.state == "growing" for rate in rates])
    # 2.5 % are expected: half of what a 95 % interval leaves out.
    assert 0.015 < growing <= 0.035


@pytest.mark.parametrize("doubling_days", [120.0, 400.0, 2000.0, math.inf, -500.0])
def test_the_interval_holds_the_true_doubling_time_in_95_of_100(doubling_days):
    rates = simulate(doubling_days, seed=1)
    true = 365.25 / doubling_days
    covered = np.mean([rate.interval[0] <= true <= rate.interval[1] for rate in rates])
    assert covered == pytest.approx(0.95, abs=0.01)
    if 0 < doubling_days < math.inf:
        intervals = [rate.vdt_interval_days for rate in rates]
        held = np.mean([i is not None and i[0] <= doubling_days <= i[1] for i in intervals])
        assert held == pytest.approx(covered, abs=1e-9)


def test_fast_growth_of_a_large_nodule_is_seen():
    rates = simulate(120.0, seed=2)
    assert np.mean([rate.state == "growing" for rate in rates]) > 0.99


def test_the_doubling_time_is_exact():
    rate = growth_rate((500.0, "solid"), (1000.0, "solid"), 200.0)
    assert rate.vdt_days == pytest.approx(200.0)
    low, high = rate.vdt_interval_days
    assert low < 200 < high < math.inf


@pytest.mark.parametrize(
    ("before", "now", "days", "state"),
    [
        (500.0, 1500.0, 365, "growing"),
        (1500.0, 500.0, 365, "shrinking"),
        (500.0, 500.0, 730, "stable"),
        (100.0, 110.0, 90, "undecided"),
    ],
)
def test_states(before, now, days, state):
    rate = growth_rate((before, "solid"), (now, "solid"), days)
    assert rate.state == state
    if state == "shrinking":
        assert rate.vdt_days is None
        assert rate.vdt_interval_days is None
    if state in ("stable", "undecided"):
        assert rate.vdt_interval_days[1] == math.inf


def test_comparing_keeps_what_the_prior_said():
    before = Earlier(2, (0.0, 0.0, 0.0), 200.0, 7.3, "solid", None, "2.25.1", ())
    growth = compare(before, (800.0, "solid"), "20250101", 365.0)
    assert growth.state == "growing"
    assert growth.interval_days == 365
    assert growth.prior_volume_mm3 == 200.0
    assert growth.prior_tracking_uid == "2.25.1"
    assert growth.vdt_days == pytest.approx(365 / 2)
    assert set(growth.note) == {"en", "zh"}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("20260101", "20260101", "not before"),
        ("20260102", "20260101", "not before"),
        ("", "20260101", "not YYYYMMDD"),
    ],
)
def test_dates_in_the_wrong_order_are_refused(before, now, message):
    with pytest.raises(ValueError, match=message):
        days_between(before, now)


def test_an_interval_of_no_days_is_refused():
    with pytest.raises(ValueError, match="not above 0"):
        growth_rate((1.0, "solid"), (1.0, "solid"), 0)
    assert sphere_diameter(math.pi / 6) == pytest.approx(1.0)
