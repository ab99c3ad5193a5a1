from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from kits.fraud import metrics, weighted
from kits.fraud.scores import Scored

PATTERNS = ("none", "amount", "terminal")
POINT = {"num_replicates": 0}


def period(seed=0, n=400, accounts=60, days=5, ties=True, rate=0.1, strength=1.5):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < rate).astype(np.int64)
    score = rng.normal(size=n) + strength * label
    if ties:
        score = np.round(score, 1)
    pattern = (label * rng.integers(1, 3, n)).astype(np.int8)
    return Scored(
        score=score,
        probability=1 / (1 + np.exp(2 - score)),
        label=label,
        day=rng.integers(10, 10 + days, n),
        account=rng.integers(1000, 1000 + accounts, n).astype(np.uint64),
        amount=rng.exponential(40, n),
        pattern=pattern,
        detectable=(label == 1) & (rng.random(n) < 0.7),
    )


def literal(score, label, day=None, account=None, **columns):
    n = len(score)
    scored = Scored(
        score=np.array(score, dtype=float),
        probability=None,
        label=np.array(label),
        day=np.zeros(n, dtype=int) if day is None else np.array(day),
        account=np.arange(n) if account is None else np.array(account),
        amount=np.ones(n),
        pattern=np.zeros(n, dtype=np.int8),
        detectable=np.array(label) == 1,
    )
    return replace(scored, **{name: np.array(value) for name, value in columns.items()})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [True, False])
def test_ranking_and_brier_equal_scikit_learn(seed, ties):
    scored = period(seed, ties=ties)
    result = metrics.evaluate(scored, 0.0, **POINT)
    expected = average_precision_score(scored.label, scored.score)
    assert result["ap"] == pytest.approx(expected, abs=1e-12)
    assert result["auc"] == pytest.approx(roc_auc_score(scored.label, scored.score), abs=1e-12)
    brier = brier_score_loss(scored.label, scored.probability)
    assert result["brier"] == pytest.approx(brier, abs=1e-12)


def test_weighted_ranking_equals_scikit_learn_with_sample_weights():
    scored = period(3)
    tokens, account = np.unique(scored.account, return_inverse=True)
    weights = np.random.default_rng(0).integers(0, 4, (len(tokens), 6)).astype(float)
    values, _ = weighted.ranking(scored.score, scored.label, account, weights, 0.003, {})
    for sample in range(6):
        weight = weights[account, sample]
        auc = roc_auc_score(scored.label, scored.score, sample_weight=weight)
        ap = average_precision_score(scored.label, scored.score, sample_weight=weight)
        assert values["auc"][sample] == pytest.approx(auc, abs=1e-12)
        assert values["ap"][sample] == pytest.approx(ap, abs=1e-12)


def test_weights_equal_resampling_by_copying_accounts():
    scored = period(5, n=600)
    tokens, account = np.unique(scored.account, return_inverse=True)
    drawn = np.random.default_rng(1).integers(len(tokens), size=len(tokens))
    weights = np.bincount(drawn, minlength=len(tokens)).astype(float)[:, None]
    rows, copies = [], []
    for code in range(len(tokens)):
        for copy in range(int(weights[code, 0])):
            rows.append(np.flatnonzero(account == code))
            copies.append(np.full(len(rows[-1]), code * 100 + copy))
    rows, copies = np.concatenate(rows), np.concatenate(copies)
    columns = {name: getattr(scored, name)[rows] for name in vars(scored) if name != "account"}
    copied = Scored(account=copies, **columns)

    sample = metrics._measure(scored, 1.0, account, weights, PATTERNS, 0.02)
    codes = np.unique(copies, return_inverse=True)[1]
    ones = np.ones((int(codes.max()) + 1, 1))
    brute = metrics._measure(copied, 1.0, codes, ones, PATTERNS, 0.02)
    del sample["ece"], brute["ece"]  # the samples keep the bins of the whole period
    assert sample.keys() == brute.keys()
    for key, value in sample.items():
        np.testing.assert_allclose(value, brute[key], rtol=1e-12, err_msg=key)


def test_bootstrap_in_chunks_gives_the_same_samples(monkeypatch):
    weeks, at = {"a": period(1)}, {"a": 1.0}
    whole = metrics.replicate(weeks, at, num_replicates=20)["a"]
    monkeypatch.setattr(metrics, "_MAX_CELLS", 500)
    parts = metrics.replicate(weeks, at, num_replicates=20)["a"]
    assert all(np.array_equal(whole[key], parts[key], equal_nan=True) for key in whole)
    assert len(whole["ap"]) == 21


def test_card_precision_of_a_worked_example():
    # Day 0: cards by highest score 1 (.9, fraud in its lesser event), 2 (.8), 3 (.1 fraud).
    # Top 2 = cards 1, 2: one hit of 2. Card 1 leaves. Day 1: top 2 = 3 (fraud), 2: one of 2.
    # Day 2: card 1 is gone and 3 was found, so only card 2 is left: none of 2.
    events = [  # day, card, score, label
        (0, 1, 0.9, 0), (0, 1, 0.2, 1), (0, 2, 0.8, 0), (0, 3, 0.1, 1),
        (1, 1, 1.0, 1), (1, 2, 0.3, 0), (1, 3, 0.7, 1), (1, 4, 0.2, 1),
        (2, 1, 0.9, 1), (2, 3, 0.9, 1), (2, 2, 0.5, 0),
    ]  # fmt: skip
    day, card, score, label = (np.array(column) for column in zip(*events, strict=True))
    value = weighted.card_precision(score, label, day, card, np.ones((5, 1)), 2)
    assert value[0] == pytest.approx((0.5 + 0.5 + 0.0) / 3)


@pytest.mark.parametrize("seed", range(3))
def test_card_precision_equals_a_plain_loop(seed):
    scored = period(seed, n=900, accounts=150, ties=False)
    found, daily = set(), []
    for day in np.unique(scored.day):
        cards = {}
        rows = np.flatnonzero(scored.day == day)
        for row in rows:
            card = int(scored.account[row])
            if card not in found:
                best, fraud = cards.get(card, (-np.inf, 0))
                cards[card] = (max(best, scored.score[row]), max(fraud, int(scored.label[row])))
        top = sorted(cards, key=lambda card: -cards[card][0])[:3]
        hits = [card for card in top if cards[card][1]]
        daily.append(len(hits) / 3)
        found.update(hits)
    account = np.unique(scored.account, return_inverse=True)[1]
    ones = np.ones((account.max() + 1, 1))
    value = weighted.card_precision(scored.score, scored.label, scored.day, account, ones, 3)
    assert value[0] == pytest.approx(np.mean(daily))


def test_known_compromised_follows_the_book_day_by_day():
    rng = np.random.default_rng(0)
    n, delay, first_day = 3000, 7, 20
    account, day = rng.integers(0, 300, n), rng.integers(0, 41, n)
    label = (rng.random(n) < 0.05).astype(int)
    mask = metrics.known_compromised(account, day, label, first_day=first_day, delay_days=delay)
    test_start = first_day + 7 + delay
    known = {a for a, d, y in zip(account, day, label, strict=True) if y and 20 <= d < 27}
    for test_day in range(test_start, test_start + 7):
        fresh = (day == test_day - delay - 1) & (label == 1)
        known |= set(account[fresh])
        expected = np.isin(account[day == test_day], list(known))
        assert np.array_equal(mask[day == test_day], expected)


def test_known_compromised_ignores_unknown_labels_and_fresh_frauds():
    account, day = np.array([1, 1, 2, 2, 3, 3]), np.array([0, 8, 0, 8, 1, 8])
    label = np.array([1, 0, -1, 0, 1, 0])
    known = metrics.known_compromised(account, day, label, first_day=0)
    assert known.tolist() == [False, True, False, False, False, False]


def test_threshold_keeps_the_bound_and_gives_away_nothing():
    scored = period(7, n=5000, ties=True, rate=0.02)
    for bound in (0.001, 0.01, 0.2):
        threshold = metrics.choose_threshold(scored, bound)
        legitimate = scored.score[scored.label == 0]
        assert (legitimate >= threshold).mean() <= bound
        next_lower = scored.score[scored.score < threshold].max()
        assert (legitimate >= next_lower).mean() > bound


@pytest.mark.parametrize(
    ("score", "label", "bound", "alerts"),
    [
        ([0.1, 0.2, 0.9], [0, 0, 1], 0.0, [False, False, True]),
        ([0.5, 0.5, 0.5], [0, 0, 1], 0.0, [False, False, False]),
        ([0.5, 0.5, 0.5], [0, 0, 1], 1.0, [True, True, True]),
        ([0.9, 0.2, 0.1], [0, 0, 1], 0.5, [True, False, False]),
    ],
)
def test_threshold_on_small_cases(score, label, bound, alerts):
    scored = literal(score, label)
    assert (scored.score >= metrics.choose_threshold(scored, bound)).tolist() == alerts


def test_recalls_come_from_the_validation_threshold_while_it_keeps_the_bound():
    validation, test = period(1, n=4000, ties=False), period(2, n=4000, ties=False)
    threshold = metrics.choose_threshold(validation, 0.02)
    result = metrics.evaluate(test, threshold, max_fpr=0.02, pattern_names=PATTERNS, **POINT)
    fraud, alert = test.label == 1, test.score >= threshold
    assert result["fpr_bound_held"] == 1
    assert result["fpr_test"] == pytest.approx(alert[~fraud].mean())
    assert result["recall_at_fpr_0.02"] == pytest.approx(alert[fraud].mean())
    found = alert[fraud & test.detectable].mean()
    assert result["detectable_recall_at_fpr_0.02"] == pytest.approx(found)
    value = test.amount[fraud & alert].sum() / test.amount[fraud].sum()
    assert result["value_recall_at_fpr_0.02"] == pytest.approx(value)
    first = alert[test.pattern == 1].mean()
    assert result["scenario.amount.recall_at_fpr_0.02"] == pytest.approx(first)
    assert result["accuracy"] == pytest.approx((alert == fraud).mean())
    assert result["precision_at_fpr_0.02"] == pytest.approx(fraud[alert].mean())
    assert result["alerts_per_day"] == alert.sum() / 5

    cut = np.sort(test.score[~fraud])[::-1][int(0.02 * (~fraud).sum())]
    best = (test.score[fraud] > cut).mean()
    assert result["recall_at_fpr_0.02.oracle_threshold"] == pytest.approx(best)


def test_a_broken_bound_falls_back_to_the_recall_that_keeps_it():
    test = period(2, n=4000, ties=False)
    result = metrics.evaluate(test, 0.0, max_fpr=0.02, **POINT)
    assert result["fpr_test.low"] > 0.02
    assert result["fpr_bound_held"] == 0
    for key in ("recall_at_fpr_0.02", "detectable_recall_at_fpr_0.02"):
        assert result[key] == result[f"{key}.oracle_threshold"]
        assert result[key] < result[f"{key}.validation_threshold"]


def test_weeks_are_averaged_and_drawn_together():
    weeks = {name: period(seed, n=800) for seed, name in enumerate(("w1", "w2", "w3"))}
    thresholds = dict.fromkeys(weeks, 1.5)
    result = metrics.evaluate_weeks(weeks, thresholds, num_replicates=50, pattern_names=PATTERNS)
    for key in ("ap", "cp_at_100", "fpr_test", "recall_at_fpr_0.003", "num_frauds", "ece"):
        mean = np.mean([result[f"week.{name}.{key}"] for name in weeks])
        assert result[key] == pytest.approx(mean)
    assert result["ap.low"] < result["ap"] < result["ap.high"]
    widths = [result[f"week.{name}.ap.high"] - result[f"week.{name}.ap.low"] for name in weeks]
    assert result["ap.high"] - result["ap.low"] < np.mean(widths)
    assert all(np.isfinite(value) for value in result.values())
    single = metrics.evaluate(weeks["w1"], 1.5, pattern_names=PATTERNS, **POINT)
    assert single["ap"] == pytest.approx(result["week.w1.ap"], abs=1e-12)


def test_the_same_numbers_come_out_every_time():
    weeks, thresholds = {"w": period(4)}, {"w": 1.5}
    assert metrics.evaluate_weeks(weeks, thresholds) == metrics.evaluate_weeks(weeks, thresholds)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    truth, covered, repeats = norm.cdf(1.5 / np.sqrt(2)), 0, 80
    for seed in range(repeats):
        scored = period(100 + seed, n=600, accounts=300, ties=False)
        result = metrics.evaluate(scored, 1.5, num_replicates=200)
        covered += result["auc.low"] <= truth <= result["auc.high"]
    assert 0.87 * repeats <= covered <= repeats


def test_false_positive_interval_never_covers_less_than_it_says():
    n = 400
    for rate in (0.001, 0.003, 0.02, 0.3):
        covered = 0.0
        for count in range(n + 1):
            interval = metrics._fpr_interval(count, n)
            if interval["fpr_test.low"] <= rate <= interval["fpr_test.high"]:
                covered += binom.pmf(count, n, rate)
        assert covered >= 0.95


def test_paired_difference_is_tighter_than_the_models_apart():
    first = {"w": period(1, n=2000, ties=False)}
    noise = np.random.default_rng(0).normal(scale=0.05, size=2000)
    second = {"w": first["w"].with_scores(first["w"].score + noise)}
    at = {"w": 1.5}
    gap = metrics.difference(first, second, (at, at), num_replicates=100)
    alone = metrics.evaluate_weeks(first, at, num_replicates=100)
    expected = alone["ap"] - metrics.evaluate_weeks(second, at, **POINT)["ap"]
    assert gap["ap"] == pytest.approx(expected)
    assert gap["ap.high"] - gap["ap.low"] < 0.5 * (alone["ap.high"] - alone["ap.low"])


def test_difference_refuses_other_rows():
    with pytest.raises(ValueError, match="score the same rows"):
        metrics.difference({"w": period(1)}, {"w": period(2)}, ({"w": 1.0}, {"w": 1.0}))


def test_calibration_error_is_small_for_true_probabilities_and_large_for_false_ones():
    rng = np.random.default_rng(0)
    probability = rng.random(20000) ** 3
    label = (rng.random(20000) < probability).astype(int)
    honest = replace(literal(probability, label), probability=probability)
    modest = replace(honest, probability=probability / 2)
    assert metrics.evaluate(honest, 0.5, **POINT)["ece"] < 0.01
    expected = probability.mean() / 2
    assert metrics.evaluate(modest, 0.5, **POINT)["ece"] == pytest.approx(expected, abs=0.01)


def test_bins_hold_equal_mass_and_keep_ties_together():
    assert np.bincount(weighted.mass_bins(np.arange(90.0), 9)).tolist() == [10] * 9
    bins = weighted.mass_bins(np.array([0.0] * 50 + [1.0] * 50), 15)
    assert len(set(bins[:50])) == 1
    assert bins[0] != bins[-1]


def test_oracle_finds_all_that_is_detectable():
    scored = period(6, n=2000)
    result = metrics.evaluate(metrics.oracle(scored), 0.5, **POINT)
    assert result["detectable_recall_at_fpr_0.003"] == 1
    assert result["ap"] >= metrics.evaluate(scored, 1.5, **POINT)["ap"]


def test_operating_points_tighten_with_the_bound():
    rows = metrics.operating_points(period(1, n=4000), period(2, n=4000), (0.01, 0.05, 0.2))
    assert [row["max_fpr"] for row in rows] == [0.01, 0.05, 0.2]
    for key in ("recall", "fpr", "alerts_per_day", "value_recall"):
        assert rows[0][key] < rows[1][key] < rows[2][key]


@pytest.mark.parametrize(
    ("label", "message"),
    [([0, 0, 0], "has no fraud among 3 events"), ([1, 1, 1], "has no legitimate event")],
)
def test_one_class_is_refused(label, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(literal([0.1, 0.2, 0.3], label), 0.5)


def test_empty_input_is_refused():
    with pytest.raises(ValueError, match="has no fraud among 0 events"):
        metrics.evaluate(literal([], []), 0.5)
    with pytest.raises(ValueError, match="weeks is empty"):
        metrics.evaluate_weeks({}, {})
    with pytest.raises(ValueError, match="no legitimate event"):
        metrics.choose_threshold(literal([], []))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"score": [0.1, np.nan]}, "score is not finite"),
        ({"label": [0, -1]}, "label is not 0 or 1"),
        ({"probability": [0.1, 1.2]}, "probability is not in"),
        ({"amount": [1.0]}, "amount has shape"),
    ],
)
def test_unusable_columns_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        replace(literal([0.1, 0.2], [0, 1]), **{k: np.array(v) for k, v in columns.items()})
