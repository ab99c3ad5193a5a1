from dataclasses import replace

import numpy as np
import pytest

from kits.fraud.config import SPLITS, SplitConfig
from kits.fraud.features import DAY_S
from kits.fraud.split import detectable, plan

DELAY_S = 7 * DAY_S


def split(**values):
    return SplitConfig(**(SPLITS["table"] | values))


def test_no_training_row_has_a_label_that_is_not_visible_yet(small_world, small_inputs):
    layout = plan(small_world, small_inputs.visible_s, split())
    for refresh in layout.refreshes:
        assert len(refresh.train)
        assert (small_inputs.visible_s[refresh.train] <= refresh.time_s).all()
        assert (small_world.time_s[refresh.score] >= refresh.time_s).all()


def test_every_row_is_scored_by_one_training_before_it(small_world, small_inputs):
    layout = plan(small_world, small_inputs.visible_s, split())
    scored = np.concatenate([refresh.score for refresh in layout.refreshes])
    assert len(np.unique(scored)) == len(scored)
    for period in layout.periods:
        assert np.isin(period.test, scored).all()
        assert np.isin(period.validation, scored).all()


def test_validation_labels_are_visible_when_the_test_period_starts(small_world, small_inputs):
    for period in plan(small_world, small_inputs.visible_s, split()).periods:
        start = np.datetime64(period.name, "s").astype(np.int64)
        assert (small_inputs.visible_s[period.validation] <= start).all()
        assert (small_world.time_s[period.test] >= start).all()
        assert (small_world.time_s[period.test] < start + 7 * DAY_S).all()


def test_a_training_window_keeps_only_its_days(small_world, small_inputs):
    layout = plan(small_world, small_inputs.visible_s, split(train_days=7.0))
    for refresh in layout.refreshes:
        ages = refresh.time_s - np.asarray(small_world.time_s)[refresh.train]
        assert ages.max() <= 14 * DAY_S


def test_the_last_share_of_the_events_is_one_period(small_world, small_inputs):
    layout = plan(small_world, small_inputs.visible_s, split(test_share=0.2, num_periods=1))
    (period,) = layout.periods
    assert period.test[-1] == len(small_world) - 1
    assert len(period.test) == pytest.approx(0.2 * len(small_world), abs=200)


def test_known_compromised_cards_are_left_out_of_the_scored_rows(small_world, small_inputs):
    kept = plan(small_world, small_inputs.visible_s, split(drop_known_compromised=False))
    dropped = plan(small_world, small_inputs.visible_s, split(drop_known_compromised=True))
    week, all_of_week = dropped.periods[0], kept.periods[0]
    gone = np.setdiff1d(all_of_week.test, week.test)
    assert len(gone)
    label, account = np.asarray(small_world.label), np.asarray(small_world.entities[:, 0])
    visible = small_inputs.visible_s
    for row in gone[:20]:
        day_start = small_world.time_s[row] // DAY_S * DAY_S
        earlier = (account == account[row]) & (label == 1) & (visible <= day_start + DAY_S)
        assert earlier.any()


def test_unknown_labels_neither_train_nor_count(small_world, small_inputs):
    label = np.array(small_world.label)
    label[::3] = -1
    layout = plan(replace(small_world, label=label), small_inputs.visible_s, split())
    used = [*(r.train for r in layout.refreshes), *(p.test for p in layout.periods)]
    assert (label[np.concatenate(used)] >= 0).all()


def test_a_first_test_day_outside_the_data_is_refused(small_world, small_inputs):
    with pytest.raises(ValueError, match=r"split\.first_test=2031-01-01 is not within the data"):
        plan(small_world, small_inputs.visible_s, split(first_test="2031-01-01"))


def test_data_without_frauds_to_train_on_are_refused(small_world, small_inputs):
    label = np.array(small_world.label)
    label[: len(label) // 2] = 0
    with pytest.raises(ValueError, match="no known fraud trains"):
        plan(
            replace(small_world, label=label),
            small_inputs.visible_s,
            split(first_test="2018-05-10"),
        )


def test_a_fraud_of_a_compromised_terminal_is_detectable_after_a_visible_one(small_world):
    visible = np.asarray(small_world.time_s) + DELAY_S
    found = detectable(small_world, visible)
    label, pattern = np.asarray(small_world.label), np.asarray(small_world.pattern)
    terminal = small_world.pattern_names.index("compromised_terminal")
    assert (found <= (label == 1)).all()
    assert found[(label == 1) & (pattern != terminal)].all()
    assert 0 < found[pattern == terminal].mean() < 1
    never = detectable(small_world, np.full(len(label), np.iinfo(np.int64).max))
    assert not never[pattern == terminal].any()
