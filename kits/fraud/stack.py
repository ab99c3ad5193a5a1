"""Trees and network joined: a logistic blend of their logits, calibrated by isotonic regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_LOGIT = 12.0


@dataclass(frozen=True)
class Stack:
    """A blend fitted on scores that were made before their labels were known."""

    weight: Mapping[str, float]  # model -> weight of its logit, not negative
    bias: float
    level: np.ndarray  # (k,) blended scores where the calibration bends, increasing
    level_probability: np.ndarray  # (k,) probability there, not decreasing

    @classmethod
    def fit(cls, logits: Mapping[str, np.ndarray], label: np.ndarray) -> Stack:
        """Fit blend and calibration.

        Args:
            logits: model -> (v,) validation logits.
            label: (v,) 0 or 1, both present.
        """
        from sklearn.isotonic import IsotonicRegression
        from sklearn.linear_model import LogisticRegression

        names = list(logits)
        columns = _columns(logits, names)
        kept = np.ones(len(names), bool)
        while True:
            model = LogisticRegression(C=1.0, max_iter=500).fit(columns[:, kept], label)
            if (model.coef_[0] > 0).all() or kept.sum() == 1:
                break
            # A negative weight would reward one model for the other's mistakes: leave it out.
            kept[np.flatnonzero(kept)[np.argmin(model.coef_[0])]] = False
        found = np.zeros(len(names))
        found[kept] = np.abs(model.coef_[0])
        weight = dict(zip(names, found.tolist(), strict=True))
        blended = columns @ found + float(model.intercept_[0])
        isotonic = IsotonicRegression(y_min=0.0, y_max=1.0).fit(blended, label)
        return cls(
            weight, float(model.intercept_[0]), isotonic.X_thresholds_, isotonic.y_thresholds_
        )

    def score(self, logits: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n,) blended logits, the ranking."""
        names = list(self.weight)
        weights = np.array([self.weight[name] for name in names])
        return _columns(logits, names) @ weights + self.bias

    def probability(self, blended: np.ndarray) -> np.ndarray:
        """(n,) calibrated probability of fraud."""
        return np.interp(blended, self.level, self.level_probability)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "weight": dict(self.weight),
            "bias": self.bias,
            "level": self.level.tolist(),
            "level_probability": self.level_probability.tolist(),
        }


def _columns(logits: Mapping[str, np.ndarray], names: list[str]) -> np.ndarray:
    return np.stack([np.clip(logits[name], -MAX_LOGIT, MAX_LOGIT) for name in names], axis=1)
