"""Fraud metrics under account weights: the arithmetic below the bootstrap of `metrics.py`.

Every function takes `weights` (A, R): how often each of A accounts was drawn in each of R samples,
and gives one value per sample. A column of ones is the plain metric; the other columns are
bootstrap samples with whole accounts as clusters, as if each drawn copy were another account.

All sums are sparse products in a fixed order: the same input gives the same bits on any number of
threads, which is what lets a stored run reproduce its own numbers.

Dimensions: n events, A accounts, R samples, G groups of equal score that hold at least one fraud.
"""

from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_matrix


def ranking(
    score: np.ndarray,
    label: np.ndarray,
    account: np.ndarray,
    weights: np.ndarray,
    max_fpr: float,
    shares: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Average precision, ROC AUC, and recalls at the best threshold the samples themselves allow.

    Args:
        score: (n,) float, larger is more suspicious; ties are treated as one threshold.
        label: (n,) 0 or 1.
        account: (n,) int, column of `weights`.
        weights: (A, R) float.
        max_fpr: bound of the false positive rate for the recalls.
        shares: name -> (n,) float, what each fraud counts in that recall (1, its amount, ...).

    Returns:
        {"ap", "auc"} each (R,), and the recalls by name each (R,); NaN where a sample has no
        fraud, or no fraud that counts in that recall.

    Source: equal to scikit-learn's average_precision_score and roc_auc_score with sample weights,
    compared in tests/kits/fraud/test_metrics.py.
    """
    order = np.argsort(-score, kind="stable")
    score, label, account = score[order], label[order], account[order]
    group = np.concatenate([[0], np.cumsum(score[1:] != score[:-1])])
    has_fraud = np.bincount(group, weights=label) > 0
    # Runs of groups without fraud need no threshold of their own: segment 2g+1 is the g-th group
    # with fraud, segment 2g what lies between it and the one before.
    segment = (2 * np.cumsum(has_fraud) - has_fraud)[group]
    num_groups, num_accounts = int(has_fraud.sum()), len(weights)

    fraud = label == 1
    legitimate = _sums(segment[~fraud], account[~fraud], None, 2 * num_groups + 1, weights)
    positive = _sums(segment[fraud] // 2, account[fraud], None, num_groups, weights)
    false_alarms = np.cumsum(legitimate, axis=0)[1::2]  # (G, R) at or above each group
    hits = np.cumsum(positive, axis=0)
    num_legitimate, num_fraud = legitimate.sum(axis=0), positive.sum(axis=0)

    precision = _ratio(hits, hits + false_alarms, empty=0.0)
    beaten = num_legitimate - false_alarms + 0.5 * legitimate[1::2]
    values = {
        "ap": _ratio((positive * precision).sum(axis=0), num_fraud),
        "auc": _ratio((positive * beaten).sum(axis=0), num_fraud * num_legitimate),
    }
    allowed = (false_alarms <= max_fpr * num_legitimate).sum(axis=0)  # groups above the threshold
    recalls = {}
    for name, share in shares.items():
        counted = np.flatnonzero(fraud & (share[order] != 0))
        cells = (share[order][counted], (segment[counted] // 2, account[counted]))
        counts = csr_matrix(cells, shape=(num_groups, num_accounts)) @ weights
        found = np.vstack([np.zeros(weights.shape[1]), np.cumsum(counts, axis=0)])
        recalls[name] = _ratio(found[allowed, np.arange(len(allowed))], found[-1])
    return values, recalls


def card_precision(
    score: np.ndarray,
    label: np.ndarray,
    day: np.ndarray,
    account: np.ndarray,
    weights: np.ndarray,
    top_k: int,
) -> np.ndarray:
    """Card precision top-k, averaged over the days.

    Each day the cards not found so far are ranked by their highest score of the day; the precision
    is the number of compromised ones (a fraud that day) in the first k, divided by k even when
    fewer cards were active. Compromised cards in the first k leave the following days. Equal scores
    are ranked by account. A card drawn several times counts as so many cards.

    Args:
        score: (n,) float.
        label: (n,) 0 or 1.
        day: (n,) int.
        account: (n,) int, row of `weights`.
        weights: (A, R) float, whole numbers.
        top_k: cards that investigators can check in a day.

    Returns:
        (R,) mean over the days that have events.

    Source: definition of the Fraud Detection Handbook, chapter 4.4.
    """
    order = np.lexsort((-score, account, day))
    starts_card = np.ones(len(order), dtype=bool)
    starts_card[1:] = (np.diff(account[order]) != 0) | (np.diff(day[order]) != 0)
    starts = np.flatnonzero(starts_card)
    cards = order[starts]  # the event with the card's highest score of the day
    compromised = np.maximum.reduceat(label[order], starts)
    remaining = weights.copy()
    precisions = []
    for this_day in np.unique(day):
        today = np.flatnonzero(day[cards] == this_day)
        today = today[np.lexsort((account[cards[today]], -score[cards[today]]))]
        ranked = account[cards[today]]
        depth = 4 * top_k
        while True:  # rank no more cards than it takes to fill every sample
            drawn = remaining[ranked[:depth]]
            before = np.cumsum(drawn, axis=0) - drawn
            taken = np.clip(top_k - before, 0, drawn)
            if depth >= len(ranked) or (taken.sum(axis=0) >= top_k).all():
                break
            depth *= 4
        found = taken * compromised[today[:depth], None]
        remaining[ranked[:depth]] -= found
        precisions.append(found.sum(axis=0) / top_k)
    return np.mean(precisions, axis=0)


def operating_point(
    alert: np.ndarray,
    label: np.ndarray,
    account: np.ndarray,
    weights: np.ndarray,
    shares: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a fixed threshold does: rates over all events, and recalls.

    Args:
        alert: (n,) bool, the score reached the threshold.
        label: (n,) 0 or 1.
        account: (n,) int, row of `weights`.
        weights: (A, R) float.
        shares: name -> (n,) float, as in `ranking`.

    Returns:
        {"fpr", "precision", "accuracy", "alerts"} each (R,), and the recalls by name each (R,);
        NaN where there is nothing to divide by.
    """
    kind = 2 * (label == 1) + alert  # 0 rightly passed, 1 false alarm, 2 missed, 3 hit
    passed, false_alarm, missed, hit = _sums(kind, account, None, 4, weights)
    total = passed + false_alarm + missed + hit
    values = {
        "fpr": _ratio(false_alarm, passed + false_alarm),
        "precision": _ratio(hit, hit + false_alarm),
        "accuracy": _ratio(passed + hit, total),
        "alerts": false_alarm + hit,
    }
    fraud = label == 1
    recalls = {}
    for name, share in shares.items():
        counts = _sums(alert[fraud].astype(int), account[fraud], share[fraud], 2, weights)
        recalls[name] = _ratio(counts[1], counts.sum(axis=0))
    return values, recalls


def calibration(
    probability: np.ndarray,
    label: np.ndarray,
    account: np.ndarray,
    weights: np.ndarray,
    num_bins: int,
) -> dict[str, np.ndarray]:
    """Expected calibration error over bins of equal mass, and the Brier score.

    Args:
        probability: (n,) in [0, 1].
        label: (n,) 0 or 1.
        account: (n,) int, row of `weights`.
        weights: (A, R) float.
        num_bins: bins; equal probabilities share one, so there may be fewer. All samples use the
            bins of the unweighted events.

    Returns:
        {"ece", "brier"} each (R,).
    """
    bins = mass_bins(probability, num_bins)
    gap = np.abs(_sums(bins, account, probability - label, int(bins.max()) + 1, weights))
    squares = _sums(np.zeros(len(bins), dtype=int), account, (probability - label) ** 2, 1, weights)
    total = _sums(np.zeros(len(bins), dtype=int), account, None, 1, weights)[0]
    return {"ece": _ratio(gap.sum(axis=0), total), "brier": _ratio(squares[0], total)}


def mass_bins(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Bin of each value, (n,) int from 0; bins hold equally many, equal values stay together."""
    edges = np.quantile(values, np.arange(1, num_bins) / num_bins)
    _, bins = np.unique(np.searchsorted(np.unique(edges), values, side="left"), return_inverse=True)
    return bins


def _sums(
    row: np.ndarray,
    account: np.ndarray,
    value: np.ndarray | None,
    num_rows: int,
    weights: np.ndarray,
) -> np.ndarray:
    """(num_rows, R): the weighted sum of the values (None: of ones) of the events in each row."""
    data = np.ones(len(row)) if value is None else value
    return csr_matrix((data, (row, account)), shape=(num_rows, len(weights))) @ weights


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Quotient, with `empty` where below is 0."""
    return np.divide(above, below, out=np.full(np.shape(below), empty), where=below != 0)
