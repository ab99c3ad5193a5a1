"""Models on the stateful features: the kit's trees and what they are compared with.

All of them train on the same rows: every known fraud and a seeded sample of the legitimate rows,
weighted back to their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kits.fraud.config import TreesConfig

Scorer = Callable[[np.ndarray], np.ndarray]  # (n, F) features -> (n,) logits
MAX_LOGIT = 15.0
FOREST_SHARE = 0.15


def sample_rows(
    rows: np.ndarray, label: np.ndarray, legitimate_per_fraud: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """All frauds and some legitimate rows: (k,) rows in order and their (k,) weights."""
    fraud = rows[label[rows] == 1]
    legitimate = rows[label[rows] == 0]
    wanted = min(len(legitimate), int(legitimate_per_fraud * len(fraud)))
    chosen = np.random.default_rng(seed).choice(legitimate, wanted, replace=False)
    kept = np.sort(np.concatenate([fraud, chosen]))
    weight = np.where(label[kept] == 1, 1.0, len(legitimate) / max(wanted, 1))
    return kept, weight


class Trees:
    """LightGBM on the stateful features; the number of rounds may be chosen on later data."""

    def __init__(self, cfg: TreesConfig, categorical: tuple[int, ...], seed: int) -> None:
        self._cfg, self._categorical, self._seed = cfg, categorical, seed
        self.boosters: list[Any] = []

    def fit(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, rounds: int) -> Trees:
        """Train on (k, F) rows."""
        import lightgbm

        cfg = self._cfg
        data = lightgbm.Dataset(
            x, y, weight=weight, categorical_feature=list(self._categorical), free_raw_data=False
        )
        for number in range(cfg.num_seeds):
            parameters = {
                "objective": "binary",
                "learning_rate": cfg.learning_rate,
                "num_leaves": cfg.num_leaves,
                "min_data_in_leaf": min(cfg.min_rows_per_leaf, max(1, len(y) // 50)),
                "feature_fraction": cfg.feature_share,
                "bagging_fraction": cfg.row_share,
                "bagging_freq": 1,
                "lambda_l2": cfg.l2,
                "seed": self._seed + number,
                "deterministic": True,
                "force_row_wise": True,
                "verbose": -1,
            }
            self.boosters.append(lightgbm.train(parameters, data, rounds))
        return self

    def score(self, x: np.ndarray, rounds: int | None = None) -> np.ndarray:
        """(n,) logits, the mean over the seeds."""
        logits = [b.predict(x, raw_score=True, num_iteration=rounds) for b in self.boosters]
        return np.mean(logits, axis=0)

    def importance(self) -> np.ndarray:
        """(F,) share of the gain that each feature brought."""
        gain = np.sum([b.feature_importance("gain") for b in self.boosters], axis=0)
        return gain / max(gain.sum(), 1e-12)


def fit_logistic(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int, share: float = 1.0
) -> Scorer:
    """Logistic regression on standardised signed logarithms; missing values at the mean."""
    from sklearn.linear_model import LogisticRegression

    logged = _signed_log(x)
    mean = np.nan_to_num(np.nanmean(logged, axis=0))
    spread = np.nan_to_num(np.nanstd(logged, axis=0))
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0)

    def prepare(values: np.ndarray) -> np.ndarray:
        return np.nan_to_num((_signed_log(values) - mean) * scale).clip(-10, 10)

    model = LogisticRegression(C=0.1, tol=1e-3 / share, max_iter=2000, random_state=seed)
    model.fit(prepare(x), y, sample_weight=weight)
    return lambda values: model.decision_function(prepare(values))


def fit_random_forest(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int, share: float = 1.0
) -> Scorer:
    """60 trees grown to leaves of 5 rows; a share of the legitimate rows, weighted back."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        round(60 * share), min_samples_leaf=5, max_features="sqrt", n_jobs=-1, random_state=seed
    )
    # A full forest takes minutes where boosting takes seconds, and ranks no better for it.
    kept = (y == 1) | (np.random.default_rng(seed).random(len(y)) < FOREST_SHARE)
    weight = np.where(y == 1, weight, weight / FOREST_SHARE)
    model.fit(x[kept], y[kept], sample_weight=weight[kept])
    # Threads would add the trees' votes in any order, and the last bits would differ.
    model.n_jobs = 1
    return lambda values: _logit(model.predict_proba(values)[:, 1])


def fit_xgboost(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int, share: float = 1.0
) -> Scorer:
    """Histogram boosting, 300 rounds of depth 6."""
    import xgboost

    parameters = {
        "objective": "binary:logistic",
        "eta": 0.05,
        "max_depth": 6,
        "min_child_weight": 5,
        "subsample": 0.8,
        "colsample_bytree": 0.5,
        "lambda": 5.0,
        "tree_method": "hist",
        "seed": seed,
        "verbosity": 0,
    }
    booster = xgboost.train(parameters, xgboost.DMatrix(x, y, weight=weight), round(300 * share))
    return lambda values: booster.predict(xgboost.DMatrix(values), output_margin=True)


# (k, F) rows, (k,) labels, (k,) weights, seed, share of the full effort.
TABULAR: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int, float], Scorer]] = {
    "logistic": fit_logistic,
    "random_forest": fit_random_forest,
    "xgboost": fit_xgboost,
}


def _signed_log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def _logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 1e-9, 1 - 1e-9)
    return np.clip(np.log(clipped / (1 - clipped)), -MAX_LOGIT, MAX_LOGIT)
