import numpy as np
import pytest

from kits.fraud.data import load_events
from kits.fraud.data.config import RingsData
from kits.fraud.data.events import fingerprint_columns

DAY_S = 86_400


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def events(cache_dir):
    return load_events(RingsData(cache_dir=cache_dir))


def test_default_world_has_the_wanted_size_and_share(events):
    assert 280_000 < len(events) < 330_000
    assert 0.008 < events.label.mean() < 0.013
    assert (np.bincount(events.pattern, minlength=5)[1:] > 300).all()
    np.testing.assert_array_equal(events.label, events.pattern > 0)


def test_events_follow_the_schema(events):
    assert events.entity_roles == ("account", "counterparty", "device", "ip")
    assert events.entity_kinds == ("party", "party", "device", "ip")
    assert events.entities.shape == (len(events), 4)
    assert (events.entities > 0).all()
    assert (events.entities[:, 0] != events.entities[:, 1]).all()
    assert (np.diff(events.time_s) >= 0).all()
    assert (events.amount > 0).all()
    assert np.isfinite(events.amount).all()
    assert events.categorical.shape == (len(events), 2)
    assert [len(np.unique(column)) for column in events.categorical.T] == [2, 3]
    assert events.fingerprint == fingerprint_columns(events.columns())


def test_frauds_are_spread_over_time(events):
    month = (events.time_s - events.time_s[0]) // (30 * DAY_S)
    frauds = np.bincount(month, weights=events.label, minlength=4)[:4]
    assert (frauds > 0.1 * frauds.sum()).all()


def test_sharing_a_device_does_not_give_fraud_away(events):
    """Of the events at devices of several accounts, nearly all are legitimate."""
    accounts = _accounts_per_value(events.entities[:, 2], events.entities[:, 0])
    is_shared = accounts >= 3
    assert is_shared[events.label == 1].mean() > 0.5
    assert events.label[is_shared].mean() < 0.1


def test_most_frauds_keep_to_the_usual_amounts_of_their_type(events):
    is_transfer = events.categorical[:, 0] == events.categorical[_first_transfer(events), 0]
    for group in (is_transfer, ~is_transfer):
        legitimate = np.quantile(events.amount[group & (events.label == 0)], 0.99)
        assert (events.amount[group & (events.label == 1)] < legitimate).mean() > 0.93


def test_same_seed_same_events_other_seed_other_events(tmp_path):
    small = {"num_accounts": 400, "num_merchants": 100, "num_days": 40, "fraud_share": 0.05}
    prints = [
        load_events(RingsData(cache_dir=str(tmp_path / place), seed=seed, **small)).fingerprint
        for place, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_smoke_is_small_and_holds_every_pattern(cache_dir):
    events = load_events(RingsData(cache_dir=cache_dir), smoke=True)
    assert 20_000 < len(events) < 60_000
    assert (np.bincount(events.pattern, minlength=5)[1:] >= 50).all()


def test_crews_touch_what_they_used_before(events):
    """At homes, a fraud's ip had a fraud 8 to 35 days earlier far more often than other events'."""
    touched = _had_fraud_between(events, column=3, first_day=8, last_day=35)
    at_home = _accounts_per_value(events.entities[:, 3], events.entities[:, 0]) < 60
    late = at_home & (events.time_s > events.time_s[0] + 40 * DAY_S)
    of_frauds = touched[late & (events.label == 1)].mean()
    of_legitimate = touched[late & (events.label == 0)].mean()
    assert of_frauds > 0.15
    assert of_frauds > 5 * of_legitimate


def _accounts_per_value(values, accounts):
    pairs = np.unique(np.stack([values, accounts], axis=1), axis=0)
    unique, counts = np.unique(pairs[:, 0], return_counts=True)
    return counts[np.searchsorted(unique, values)]


def _first_transfer(events):
    merchants_only = ~np.isin(events.entities[:, 1], events.entities[:, 0])
    return int(np.flatnonzero(~merchants_only)[0])


def _had_fraud_between(events, *, column, first_day, last_day):
    value, time_s = events.entities[:, column], events.time_s
    order = np.argsort(value, kind="stable")
    touched = np.zeros(len(value), bool)
    for group in np.split(order, np.flatnonzero(np.diff(value[order])) + 1):
        frauds = time_s[group][events.label[group] == 1]
        if len(frauds):
            oldest = np.searchsorted(frauds, time_s[group] - last_day * DAY_S)
            newest = np.searchsorted(frauds, time_s[group] - first_day * DAY_S)
            touched[group] = newest > oldest
    return touched
