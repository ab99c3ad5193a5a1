"""The features: what each column of `Rows.features` means, in the order of the columns.

All describe the state before the event: nothing of the event itself is in them but its amount, its
time and which entities it names. NaN means that there is nothing to say (nothing seen, no label, a
division by nothing). Names of an entity's features carry its role: `account.count_1d`.

In the names, `_1h`, `_1d`, `_8d`, `_32d` are half-lives of sums that fade; `window_*_1d`, `_7d`,
`_30d` are sums over a rolling window, moved forward in eighths of it; `_s` are seconds, ages count
from the event back. Amounts are in the source's currency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernels.fold.rows import shared_roles

EVENT: Mapping[str, str] = {
    "amount": "amount of the event",
    "second_of_day": "seconds since midnight, UTC",
    "day_of_week": "0 Sunday to 6 Saturday, UTC",
}

# Of the entity that the event names in a role; an empty role is an entity never seen.
ENTITY: Mapping[str, str] = {
    "age_s": "age of the entity's first event",
    "gap_s": "age of its last event",
    "count": "events so far",
    "count_1h": "events, fading",
    "count_1d": "events, fading",
    "count_8d": "events, fading",
    "count_32d": "events, fading",
    "mean_amount_1d": "mean amount, fading",
    "mean_amount_8d": "mean amount, fading",
    "mean_amount_32d": "mean amount, fading",
    "window_count_1d": "events in the window",
    "window_mean_1d": "mean amount in the window",
    "window_count_7d": "events in the window",
    "window_mean_7d": "mean amount in the window",
    "window_count_30d": "events in the window",
    "window_mean_30d": "mean amount in the window",
    "habit_mean": "mean amount without known frauds, each cut at 3 times the mean before it",
    "amount_to_habit": "amount / habit_mean",
    "amount_habit_z": "(amount - habit_mean) / standard deviation of the habit",
    "amount_log_z": "(log2(1 + amount) - mean) / standard deviation, over all its events",
    "amount_to_median": "amount / median of the last 16 amounts",
    "amount_median_z": "(amount - median) / median distance to the median, last 16 amounts",
    "excess_1d": "sum of amount / account's habit beyond 2, fading, labelled or not",
    "excess_8d": "as excess_1d",
    "loud_last_age_s": "age of the last loud event (over 2.5 times the account's habit)",
    "loud_burst_age_s": "age of the first of the loud events without a gap of 14 days",
    "known_count": "labels known",
    "known_fraud": "frauds known",
    "known_8d": "labels known, fading since they became visible",
    "risk": "known_fraud / known_count",
    "risk_8d": "share of frauds in the labels known, fading",
    "risk_32d": "share of frauds in the labels known, fading",
    "fraud_8d": "frauds known, fading since they became visible",
    "fraud_32d": "frauds known, fading since they became visible",
    "last_fraud_age_s": "age of the event that was last learnt to be a fraud",
    "last_legit_age_s": "age of the event that was last learnt to be legitimate",
    "streak": "frauds learnt since the last legitimate label",
    "streak_age_s": "age of the event that began the streak",
    "legit_since_fraud": "legitimate labels since the last fraud label",
    "quiet_fraud_32d": "known frauds that were not loud, fading since they became visible",
    "quiet_fraud_age_s": "age of the latest known fraud that was not loud",
    "quiet_burst_age_s": "age of the first of the quiet frauds without a gap of 14 days",
    "loud_fraud_32d": "known frauds that were loud, fading since they became visible",
    "loud_fraud_age_s": "age of the latest known fraud that was loud",
    "loud_burst_fraud_age_s": "age of the first of the loud frauds without a gap of 14 days",
}

# Of the account's last 16 events. Open: no label known yet. Ratio: amount / the account's habit
# before it, NaN while fewer than 3 amounts make the habit.
HISTORY_OF_ACCOUNT: Mapping[str, str] = {
    "open_count": "open events",
    "open_loud": "open events that are loud",
    "open_max_ratio": "largest ratio of an open event, 0 without",
    "open_second_ratio": "second largest, 0 without",
    "open_max_age_s": "age of the open event with the largest ratio",
    "recent_fraud": "known frauds",
    "ratio_1": "ratio of the last event",
    "ratio_2": "ratio of the last but one",
    "ratio_3": "ratio of the last but two",
    "gap_2_s": "age of the last event but one",
}

# Of the account and the entity together; for every role but the account.
PAIR: Mapping[str, str] = {
    "pair_count": "events of this account at this entity",
    "pair_gap_s": "age of the last of them",
}

# Of the last 16 events of anyone at the entity; for roles that accounts share.
AROUND: Mapping[str, str] = {
    "around_count": "events, at most 16",
    "around_accounts": "accounts",
    "around_others": "events of other accounts",
    "around_tainted": "other accounts with a known fraud anywhere",
    "around_fraud": "known frauds",
    "around_open": "events without a known label",
    "around_loud": "loud events",
    "around_span_s": "age of the oldest of them",
}

FEATURES: Mapping[str, str] = {**EVENT, **ENTITY, **HISTORY_OF_ACCOUNT, **PAIR, **AROUND}


def feature_names(roles: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Names of the feature columns for these roles, in order."""
    names = list(EVENT)
    for role, name in enumerate(roles):
        parts = [*ENTITY, *(PAIR if role else HISTORY_OF_ACCOUNT)]
        parts += AROUND if role in shared_roles(kinds) else ()
        names += [f"{name}.{part}" for part in parts]
    return tuple(names)
