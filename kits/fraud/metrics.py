"""The fraud kit's yardstick: scored periods in, numbers with intervals out.

Thresholds come from validation data alone; intervals from a bootstrap that draws whole accounts,
because the frauds of one card are not independent. Precision, recall and rates count transactions;
card precision counts cards.

Dimensions: n events of one period, R bootstrap samples.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import beta

from kits.fraud import weighted
from kits.fraud.scores import Scored

MAX_FPR = 0.003
TOP_K = 100
CALIBRATION_BINS = 15
NUM_REPLICATES = 300
# At most so many numbers in one intermediate array: 64 MiB of float64.
_MAX_CELLS = 1 << 23


def oracle(scored: Scored) -> Scored:
    """The same period ranked by the truth as far as it was detectable: an upper bound, no model."""
    best = ((scored.label == 1) & scored.detectable).astype(np.float64)
    return scored.with_scores(best)


def known_compromised(
    account: np.ndarray,
    day: np.ndarray,
    label: np.ndarray,
    *,
    first_day: int,
    delay_days: int = 7,
) -> np.ndarray:
    """Which events belong to a card that is known to be compromised on the event's day.

    The book removes these from a test week: for test day t, the cards with a fraud on any day from
    `first_day`, the first day of the week's training window, to t - delay_days - 1.

    Args:
        account: (n,) tokens; the events must reach back to `first_day`.
        day: (n,) int.
        label: (n,) 1 fraud; anything else is not.
        first_day: frauds before it are forgotten (the book: test start - 7 days - delay).
        delay_days: days until a label is known.

    Returns:
        (n,) bool.

    Source: Fraud Detection Handbook, chapter 3.4 (get_train_test_set), re-written.
    """
    _, code = np.unique(account, return_inverse=True)
    never = np.iinfo(np.int64).max
    first_fraud = np.full(int(code.max(initial=0)) + 1, never, dtype=np.int64)
    counted = (label == 1) & (day >= first_day)
    np.minimum.at(first_fraud, code[counted], day[counted])
    return first_fraud[code] <= np.asarray(day, dtype=np.int64) - delay_days - 1


def choose_threshold(validation: Scored, max_fpr: float = MAX_FPR) -> float:
    """The lowest score that keeps the false positive rate of the validation data in bounds.

    An event is an alert when its score >= the threshold. The value lies half-way between the last
    score let in and the first one kept out. When even the highest score breaks the bound, the
    threshold lies just above it: nothing is an alert.
    """
    legitimate = int((validation.label == 0).sum())
    if legitimate == 0:
        raise ValueError("validation.label has no legitimate event; choose a longer validation")
    levels, inverse = np.unique(validation.score, return_inverse=True)
    per_level = np.bincount(inverse, weights=validation.label == 0)
    at_or_above = np.cumsum(per_level[::-1])[::-1]
    first = int(np.searchsorted(-at_or_above, -max_fpr * legitimate, side="left"))
    if first == 0:
        return float(levels[0])
    if first == len(levels):
        return float(np.nextafter(np.float64(levels[-1]), np.inf))
    below, above = float(levels[first - 1]), float(levels[first])
    middle = below + (above - below) / 2
    return middle if below < middle <= above else above


def evaluate(
    scored: Scored,
    threshold: float,
    *,
    pattern_names: Sequence[str] = (),
    max_fpr: float = MAX_FPR,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> dict[str, float]:
    """All metrics of one period as flat keys; see `evaluate_weeks`, which names them."""
    samples = replicate(
        {"": scored},
        {"": threshold},
        pattern_names=pattern_names,
        max_fpr=max_fpr,
        num_replicates=num_replicates,
        seed=seed,
    )[""]
    return _with_intervals(samples) | _facts(scored, threshold, samples["fpr_test"][0], max_fpr)


def evaluate_weeks(
    weeks: Mapping[str, Scored],
    thresholds: Mapping[str, float],
    *,
    pattern_names: Sequence[str] = (),
    max_fpr: float = MAX_FPR,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> dict[str, float]:
    """All metrics as the mean over the weeks, and each week's own as `week.<name>.<key>`.

    Keys: ap, auc, cp_at_100, fpr_test, accuracy, precision_at_fpr_0.003, ece and brier (with
    probabilities), and the recalls `recall_at_fpr_0.003`, `detectable_recall_at_fpr_0.003`,
    `value_recall_at_fpr_0.003`, `scenario.<pattern>.recall_at_fpr_0.003`, ... Each has
    `<key>.low` and `<key>.high`, the bootstrap's 95 % interval; for the mean, one draw of accounts
    serves all weeks. The interval of fpr_test is Clopper and Pearson's of the pooled counts.

    Each recall exists at two thresholds: `<key>.validation_threshold`, chosen on validation data,
    and `<key>.oracle_threshold`, the best one that the test data itself allows, for comparing
    rankings only. `<key>` is the first, unless the false positive rate it realises in that week is
    above `max_fpr` with its whole interval: then it is the second, which keeps the bound.
    `fpr_bound_held` tells (for the mean: the share of weeks).

    Args:
        weeks: name -> period.
        thresholds: name -> threshold, from `choose_threshold`.
        pattern_names: index = value of `pattern`; index 0 is "none" and not reported.
        max_fpr: the bound that the recalls are named after.
        num_replicates: bootstrap samples; 0 gives no intervals.
        seed: of the draws; equal seeds and accounts give paired samples (see `difference`).

    Raises:
        ValueError: a week is empty or has one class only, or a name is missing.
    """
    samples = replicate(
        weeks,
        thresholds,
        pattern_names=pattern_names,
        max_fpr=max_fpr,
        num_replicates=num_replicates,
        seed=seed,
    )
    result = _with_intervals(mean_samples(list(samples.values())))
    facts = {
        name: _facts(weeks[name], thresholds[name], samples[name]["fpr_test"][0], max_fpr)
        for name in weeks
    }
    result |= mean_over_weeks(list(facts.values()))
    pooled = ("num_false_alarms", "num_legitimate")
    result |= _fpr_interval(*(sum(fact[key] for fact in facts.values()) for key in pooled))
    for name in weeks:
        week = _with_intervals(samples[name]) | facts[name]
        result |= {f"week.{name}.{key}": value for key, value in week.items()}
    return result


def difference(
    first: Mapping[str, Scored],
    second: Mapping[str, Scored],
    thresholds: tuple[Mapping[str, float], Mapping[str, float]],
    *,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> dict[str, float]:
    """Mean over the weeks of first minus second, same keys, with paired 95 % intervals.

    Both must score the same events: the same draw of accounts then serves both.
    """
    for name in first:
        if not np.array_equal(first[name].account, second[name].account):
            raise ValueError(f"week {name!r} holds other events in second; score the same rows")
    one, two = (
        mean_samples(list(replicate(weeks, at, num_replicates=num_replicates, seed=seed).values()))
        for weeks, at in zip((first, second), thresholds, strict=True)
    )
    return _with_intervals({key: one[key] - two[key] for key in one if key in two})


def mean_over_weeks(weeks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each key over the weeks that have it; intervals do not average and are left out."""
    keys = dict.fromkeys(key for week in weeks for key in week)
    return {
        key: float(np.mean([week[key] for week in weeks if key in week]))
        for key in keys
        if not key.endswith((".low", ".high"))
    }


def operating_points(
    validation: Scored, test: Scored, max_fprs: Sequence[float]
) -> list[dict[str, float]]:
    """One row per bound: what the threshold chosen on validation for it does on test."""
    account, ones = np.zeros(len(test.label), dtype=int), np.ones((1, 1))
    shares = {"recall": np.ones(len(test.label)), "value_recall": np.asarray(test.amount)}
    rows = []
    for max_fpr in max_fprs:
        threshold = choose_threshold(validation, max_fpr)
        alert = test.score >= threshold
        rates, recalls = weighted.operating_point(alert, test.label, account, ones, shares)
        row = {"max_fpr": max_fpr, "threshold": threshold}
        row |= {key: float(value[0]) for key, value in (rates | recalls).items()}
        row["alerts_per_day"] = row.pop("alerts") / len(np.unique(test.day))
        rows.append({key: value for key, value in row.items() if not np.isnan(value)})
    return rows


def replicate(
    weeks: Mapping[str, Scored],
    thresholds: Mapping[str, float],
    *,
    pattern_names: Sequence[str] = (),
    max_fpr: float = MAX_FPR,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Per week and key (1 + R,): the metric itself, then its bootstrap samples.

    The accounts of all weeks are drawn together, so that a card's weeks stay together.
    """
    if not weeks:
        raise ValueError("weeks is empty; give at least one scored period")
    for name, scored in weeks.items():
        if name not in thresholds:
            raise ValueError(f"thresholds has no {name!r}; choose one on validation data")
        for value, what in ((1, "fraud"), (0, "legitimate event")):
            if not (scored.label == value).any():
                raise ValueError(
                    f"label of period {name!r} has no {what} among {len(scored.label)} events; "
                    "choose a longer period"
                )
    tokens = np.unique(np.concatenate([np.unique(scored.account) for scored in weeks.values()]))
    codes = {name: np.searchsorted(tokens, scored.account) for name, scored in weeks.items()}
    rng = np.random.default_rng(seed)
    widest = max(len(tokens), *(2 * int(scored.label.sum()) for scored in weeks.values()))
    parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in weeks}
    done = 0
    while done <= num_replicates:
        size = min(max(1, _MAX_CELLS // widest), num_replicates + 1 - done)
        weights = np.ones((len(tokens), size))
        for column in range(size):
            if done + column > 0:
                drawn = rng.integers(len(tokens), size=len(tokens))
                weights[:, column] = np.bincount(drawn, minlength=len(tokens))
        for name, scored in weeks.items():
            measured = _measure(
                scored, thresholds[name], codes[name], weights, pattern_names, max_fpr
            )
            parts[name].append(measured)
        done += size
    joined = {
        name: {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}
        for name, chunks in parts.items()
    }
    return {name: _choose_recalls(joined[name], weeks[name], max_fpr) for name in weeks}


def mean_samples(weeks: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean of `replicate`'s samples over the weeks that have the key."""
    keys = dict.fromkeys(key for week in weeks for key in week)
    return {key: np.mean([week[key] for week in weeks if key in week], axis=0) for key in keys}


def _measure(
    scored: Scored,
    threshold: float,
    account: np.ndarray,
    weights: np.ndarray,
    pattern_names: Sequence[str],
    max_fpr: float,
) -> dict[str, np.ndarray]:
    """Each metric of one period under `weights` (A, R), as (R,)."""
    suffix = f"at_fpr_{max_fpr:g}"
    fraud, detectable = scored.label == 1, scored.detectable.astype(bool)
    shares = {
        f"recall_{suffix}": np.ones(len(fraud)),
        f"detectable_recall_{suffix}": detectable.astype(np.float64),
        f"value_recall_{suffix}": np.asarray(scored.amount, dtype=np.float64),
    }
    for value, name in enumerate(pattern_names):
        ours = scored.pattern == value
        if value > 0 and (ours & fraud).any():
            shares[f"scenario.{name}.recall_{suffix}"] = ours.astype(np.float64)
            shares[f"scenario.{name}.detectable_recall_{suffix}"] = (ours & detectable) * 1.0
    values, best = weighted.ranking(scored.score, scored.label, account, weights, max_fpr, shares)
    alert = scored.score >= threshold
    rates, chosen = weighted.operating_point(alert, scored.label, account, weights, shares)
    values |= {
        f"cp_at_{TOP_K}": weighted.card_precision(
            scored.score, scored.label, scored.day, account, weights, TOP_K
        ),
        "fpr_test": rates["fpr"],
        "accuracy": rates["accuracy"],
        f"precision_{suffix}": rates["precision"],
    }
    if scored.probability is not None:
        values |= weighted.calibration(
            scored.probability, scored.label, account, weights, CALIBRATION_BINS
        )
    for name in shares:
        values[f"{name}.validation_threshold"] = chosen[name]
        values[f"{name}.oracle_threshold"] = best[name]
    return values


def _choose_recalls(
    samples: dict[str, np.ndarray], scored: Scored, max_fpr: float
) -> dict[str, np.ndarray]:
    """Put each recall under its plain key too, at the threshold that keeps the bound."""
    held = _bound_held(samples["fpr_test"][0], int((scored.label == 0).sum()), max_fpr)
    source = ".validation_threshold" if held else ".oracle_threshold"
    plain = {
        key.removesuffix(source): value for key, value in samples.items() if key.endswith(source)
    }
    return samples | plain


def _bound_held(fpr: float, num_legitimate: int, max_fpr: float) -> bool:
    """Whether a realised rate, or its interval, lies within the bound."""
    interval = _fpr_interval(round(fpr * num_legitimate), num_legitimate)
    return bool(fpr <= max_fpr or interval["fpr_test.low"] <= max_fpr)


def _fpr_interval(num_false_alarms: float, num_legitimate: float) -> dict[str, float]:
    """Clopper and Pearson's 95 % interval of the false positive rate."""
    false, right = num_false_alarms, num_legitimate - num_false_alarms
    return {
        "fpr_test.low": float(beta.ppf(0.025, false, right + 1)) if false else 0.0,
        "fpr_test.high": float(beta.ppf(0.975, false + 1, right)) if right else 1.0,
    }


def _facts(scored: Scored, threshold: float, fpr: float, max_fpr: float) -> dict[str, float]:
    """Counts of a period and the threshold's own facts."""
    num_legitimate = int((scored.label == 0).sum())
    num_false_alarms = round(fpr * num_legitimate)
    return {
        "threshold": float(threshold),
        "fpr_bound_held": float(_bound_held(fpr, num_legitimate, max_fpr)),
        **_fpr_interval(num_false_alarms, num_legitimate),
        "alerts_per_day": float((scored.score >= threshold).sum() / len(np.unique(scored.day))),
        "num_events": len(scored.label),
        "num_legitimate": num_legitimate,
        "num_false_alarms": num_false_alarms,
        "num_frauds": int((scored.label == 1).sum()),
        "num_detectable": int(((scored.label == 1) & scored.detectable).sum()),
    }


def _with_intervals(samples: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Flat keys: the metric, and the 2.5 and 97.5 % quantiles of its samples if there are any."""
    result: dict[str, float] = {}
    for key, values in samples.items():
        if np.isnan(values[0]):
            continue
        result[key] = float(values[0])
        drawn = values[1:][~np.isnan(values[1:])]
        if len(drawn):
            low, high = np.quantile(drawn, (0.025, 0.975))
            result |= {f"{key}.low": float(low), f"{key}.high": float(high)}
    return result
