"""What single features say on streams short enough to work out by hand; refusals; growth."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels.fold import FEATURES, Fold, Labels, Rows
from kernels.fold.reference import ReferenceFold

ROOT = Path(__file__).parents[3]
DAY_S = 86_400
NO_LABELS = Labels.schedule(np.zeros(0), np.zeros(0, np.int64))
CARDS = ("account", "merchant"), ("account", "merchant")


@pytest.fixture(params=[Fold, ReferenceFold])
def told(request):
    """Rows of a card world: `told(days, accounts, merchants, amounts)[feature]`."""

    def fold_events(days, accounts, merchants, amounts, label=(), delay_days=0.0):
        fold = request.param(*CARDS)
        time_s = np.round(np.array(days) * DAY_S).astype(np.int64)
        rows = Rows.empty(len(days), len(fold.feature_names))
        visible_s = (time_s + delay_days * DAY_S).astype(np.int64)[: len(label)]
        labels = Labels.schedule(np.array(label), visible_s)
        tokens = np.stack([accounts, merchants], axis=1).astype(np.uint64)
        fold.run(time_s, tokens, np.array(amounts, np.float64), labels, rows)
        return dict(zip(fold.feature_names, rows.features.T.tolist(), strict=True))

    return fold_events


def test_calendar(told):
    at = told([0.25, 3.5, 4.0], [1] * 3, [1] * 3, [1] * 3)  # 1970-01-01 was a Thursday
    assert at["second_of_day"] == [21_600, 43_200, 0]
    assert at["day_of_week"] == [4, 0, 1]


def test_counts_and_means_fade_by_half_in_a_half_life(told):
    at = told([0, 0, 8], [1] * 3, [1, 2, 1], [10, 30, 5])
    assert at["account.count"] == [0, 1, 2]
    assert at["account.count_8d"][2] == 1
    assert at["account.count_1d"][2] == 2 / 256
    assert at["account.mean_amount_8d"] == [pytest.approx(np.nan, nan_ok=True), 10, 20]
    assert at["merchant.count_8d"] == [0, 0, 0.5]
    assert at["account.gap_s"][1:] == [0, 8 * DAY_S]


def test_windows_forget_whole_eighths(told):
    days = [1.0, 1.1, 1.9, 2.0, 2.13, 8]
    at = told(days, [1] * 6, [1] * 6, [1, 2, 3, 4, 5, 6])
    # At 2.0 the eighth from 1.0 to 1.125 has left; at 8 the week begins at 1.75.
    assert at["account.window_count_1d"] == [0, 1, 2, 1, 2, 0]
    assert at["account.window_mean_1d"][2:5] == [1.5, 3, 3.5]
    assert at["account.window_count_7d"] == [0, 1, 2, 3, 4, 3]
    assert at["account.window_count_30d"] == [0, 1, 2, 3, 4, 5]


def test_median_of_the_last_sixteen_amounts(told):
    random = np.random.default_rng(0)
    amounts = np.round(random.lognormal(3, 1, 40), 2)
    at = told(np.arange(40), [1] * 40, [1] * 40, amounts)
    for i in range(1, 40):
        recent = amounts[max(0, i - 16) : i]
        median = np.median(recent)
        assert at["account.amount_to_median"][i] == np.float32(amounts[i] / median)
        spread = np.median(np.abs(recent - median))
        if spread > 0:
            expected = np.float32((amounts[i] - median) / spread)
            assert at["account.amount_median_z"][i] == pytest.approx(expected, rel=1e-6)


def test_habit_takes_known_frauds_back_and_cuts_large_amounts(told):
    at = told([0, 1, 2, 3, 9, 30], [1] * 6, [1] * 6, [10, 10, 10, 90, 20, 10],
              [0, 0, 0, 1], delay_days=20)  # fmt: skip
    # 90 counts as 30, three times the habit, until it is known to be a fraud.
    assert at["account.habit_mean"][1:] == [10, 10, 10, 15, 12.5]
    assert at["account.amount_to_habit"][3] == 9
    assert at["account.ratio_1"][4] == 9
    assert at["account.open_loud"] == [0, 0, 0, 0, 1, 0]
    assert at["account.recent_fraud"] == [0, 0, 0, 0, 0, 1]
    assert at["account.loud_fraud_age_s"][5] == 27 * DAY_S
    assert at["account.loud_last_age_s"][4:] == [6 * DAY_S, 27 * DAY_S]


def test_risk_of_a_merchant_waits_for_the_labels(told):
    at = told([0, 1, 2, 8.5, 9.5], [1, 2, 3, 4, 4], [5] * 5, [1] * 5, [1, 1, 0], delay_days=7)
    assert at["merchant.known_count"] == [0, 0, 0, 2, 3]
    assert at["merchant.risk"][3:] == [1, np.float32(2 / 3)]
    assert at["merchant.streak"] == [0, 0, 0, 2, 0]
    assert at["merchant.last_fraud_age_s"][3:] == [7.5 * DAY_S, 8.5 * DAY_S]
    assert at["merchant.around_tainted"] == [0, 0, 0, 2, 2]
    assert at["merchant.around_accounts"] == [0, 1, 2, 3, 4]
    assert at["merchant.around_open"] == [0, 1, 2, 1, 1]
    assert at["account.known_count"] == [0] * 5
    assert at["merchant.pair_count"] == [0, 0, 0, 0, 1]


def test_every_feature_is_explained():
    fold = Fold(("a", "b", "c"), ("x", "x", "y"))
    assert {name.rpartition(".")[2] for name in fold.feature_names} == set(FEATURES)


@pytest.fixture(params=[Fold, ReferenceFold])
def fold(request):
    return request.param(*CARDS)


def events(times=(1, 2, 3), amounts=(1, 1, 1)):
    times = np.array(times)
    return times, np.ones((len(times), 2), np.uint64), np.array(amounts, np.float64)


@pytest.mark.parametrize(
    ("times", "amounts"),
    [
        ((1, 3, 2), (1, 1, 1)),
        ((-1, 2, 3), (1, 1, 1)),
        ((1.0, 2.0, 3.0), (1, 1, 1)),
        ((1, 2, 3), (1, -1, 1)),
        ((1, 2, 3), (1, np.nan, 1)),
        ((1, 2, 3), (1, np.inf, 1)),
        ((1, 2, 3), (1, 1)),
        ((1, 2), (1, 1, 1)),
    ],
)
def test_bad_events_are_refused(fold, times, amounts):
    with pytest.raises(ValueError, match=r"time_s|amount"):
        fold.run(*events(times, amounts), NO_LABELS)
    assert fold.run(*events(), NO_LABELS) == 0  # and nothing was folded


def test_tokens_must_fit_the_roles(fold):
    time_s, _, amount = events()
    for tokens in (np.ones((3, 1), np.uint64), np.ones(3, np.uint64), np.ones((3, 2))):
        with pytest.raises(ValueError, match="tokens"):
            fold.run(time_s, tokens, amount, NO_LABELS)


def test_time_does_not_go_back_between_runs(fold):
    fold.run(*events((5, 6, 7)), NO_LABELS)
    with pytest.raises(ValueError, match="time_s is negative or goes back"):
        fold.run(*events((6, 7, 8)), NO_LABELS)


@pytest.mark.parametrize(
    ("event", "time_s", "value", "message"),
    [
        ([1, 0], [3, 2], [0, 0], "not sorted"),
        ([1, 0], [3, 3], [0, 0], "not sorted"),
        ([0, 0], [3, 3], [0, 1], "not sorted"),
        ([-1], [3], [0], "negative event"),
        ([0], [3], [2], "value"),
        ([0], [3], [-1], "value"),
        ([1], [1], [0], "before its event"),
        ([7], [2], [0], "before its event"),
        ([0, 1], [3], [0], "differ in length"),
    ],
)
def test_bad_labels_are_refused(fold, event, time_s, value, message):
    labels = Labels(np.array(event), np.array(time_s), np.array(value, np.int8))
    with pytest.raises(ValueError, match=message):
        fold.run(*events(), labels)


def test_labels_do_not_go_back_between_runs(fold):
    labels = Labels.schedule(np.array([0, 1]), np.array([2, 3]))
    assert fold.run(*events(), labels) == 2
    with pytest.raises(ValueError, match="not sorted"):
        fold.run(*events((3, 4, 5)), labels[:1])


@pytest.mark.parametrize(
    ("roles", "kinds", "message"),
    [
        ([], [], "not 1 to 8"),
        (list("abcdefghi"), list("abcdefghi"), "not 1 to 8"),
        (["a", "a"], ["a", "b"], "twice"),
        (["a", "b"], ["a"], "one kind for each"),
    ],
)
@pytest.mark.parametrize("kind_of_fold", [Fold, ReferenceFold])
def test_bad_roles_are_refused(roles, kinds, message, kind_of_fold):
    with pytest.raises(ValueError, match=message):
        kind_of_fold(roles, kinds)


def test_rows_that_do_not_fit_are_refused(fold):
    features = len(fold.feature_names)
    good = Rows.empty(3, features)
    fixed = Rows.empty(3, features)
    fixed.history.flags.writeable = False
    for rows, name in [
        (Rows.empty(2, features), "features"),
        (Rows.empty(3, features - 1), "features"),
        (Rows(np.zeros((3, features)), *list(vars(good).values())[1:]), "features"),
        (Rows.empty(6, features)[::2], "features"),
        (fixed, "history"),
    ]:
        with pytest.raises(ValueError, match=f"out.{name} is .* give contiguous writable"):
            fold.run(*events(), NO_LABELS, rows)
    assert fold.run(*events(), NO_LABELS, good) == 0


def test_eight_roles_are_enough_and_no_label_is_needed():
    names = [f"role{i}" for i in range(8)]
    fold = Fold(names, names)
    rows = Rows.empty(2, len(fold.feature_names))
    fold.run(np.zeros(2, np.int64), np.ones((2, 8), np.uint64), np.ones(2), NO_LABELS, rows)
    assert rows.features[1, fold.feature_names.index("role7.count")] == 1


def test_a_hundred_thousand_accounts_keep_their_own_state_in_the_memory_reported():
    n = 100_000
    fold = Fold(["account"], ["account"])
    tokens = np.random.default_rng(0).permutation(np.arange(n, dtype=np.uint64))[:, None]
    empty_bytes = fold.memory_bytes
    fold.run(np.arange(n), tokens, np.ones(n), NO_LABELS)
    assert fold.num_entities(0) == n
    assert 0.5 < (fold.memory_bytes - empty_bytes) / n / fold.account_bytes < 2
    rows = Rows.empty(n, len(fold.feature_names))
    fold.run(np.arange(n, 2 * n), tokens, np.ones(n), NO_LABELS, rows)
    assert (rows.features[:, fold.feature_names.index("account.count")] == 1).all()
    assert (rows.features[:, fold.feature_names.index("account.gap_s")] == n).all()
    assert fold.num_entities(0) == n


RESIDENT = """
import numpy as np, psutil
from kernels.fold import Fold, Labels
n = 100_000
fold = Fold(["account"], ["account"])
tokens = np.random.default_rng(0).permutation(np.arange(n, dtype=np.uint64))[:, None]
before = psutil.Process().memory_info().rss
fold.run(np.arange(n), tokens, np.ones(n), Labels.schedule(np.zeros(0), np.zeros(0, np.int64)))
print((psutil.Process().memory_info().rss - before) / n / fold.account_bytes)
"""


def test_the_memory_reported_is_the_memory_taken():
    # In a process of its own: what others freed before would be counted, or used again.
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert 0.5 < float(done.stdout) < 2


def test_entities_are_counted_by_role_even_if_roles_share_a_kind():
    fold = Fold(["account", "counterparty"], ["account", "account"])
    tokens = np.array([[1, 2], [1, 3], [2, 1], [1, 0]], np.uint64)
    fold.run(np.arange(4), tokens, np.ones(4), NO_LABELS)
    assert [fold.num_entities(0), fold.num_entities(1)] == [2, 3]
