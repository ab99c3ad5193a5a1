"""mAP as ultralytics' validator computes it, and the F score of DeepPCB.

Dimensions: D found boxes of all images, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.defect.metrics.matching import MAP_THRESHOLDS, Scored, match

F_OVERLAP = 0.33  # as DeepPCB is scored


@dataclass(frozen=True)
class Hits:
    """All that AP and F need of one image, so that images can be drawn again and again."""

    is_true: np.ndarray  # (D, T) bool
    is_true_loosely: np.ndarray  # (D,) bool, at F_OVERLAP
    scores: np.ndarray  # (D,)
    classes: np.ndarray  # (D,)
    true_classes: np.ndarray  # (G,)


def hits_of(scored: Scored) -> Hits:
    """What one image adds."""
    matched = match(scored, (*MAP_THRESHOLDS, F_OVERLAP)) >= 0
    found = scored.found
    return Hits(matched[:, :-1], matched[:, -1], found.scores, found.classes, scored.truth.classes)


def average_precisions(hits: Sequence[Hits]) -> dict[int, np.ndarray]:
    """Class -> (T,) AP, of the classes that there are true boxes of."""
    from kits.defect.yolo.quiet import import_ultralytics

    metrics = import_ultralytics("ultralytics.utils.metrics")
    true_classes = np.concatenate([one.true_classes for one in hits])
    if not len(true_classes):
        return {}
    found = metrics.ap_per_class(
        np.concatenate([one.is_true for one in hits]),
        np.concatenate([one.scores for one in hits]),
        np.concatenate([one.classes for one in hits]),
        true_classes,
    )
    precisions, classes = found[5], found[6]
    return {int(each): precisions[k] for k, each in enumerate(classes)}


def map_metrics(hits: Sequence[Hits]) -> dict[str, float]:
    """`map50` and `map50_95`, means over the classes that there are; 0 without any."""
    found = list(average_precisions(hits).values())
    if not found:
        return {"map50": 0.0, "map50_95": 0.0}
    table = np.stack(found)
    return {"map50": float(table[:, 0].mean()), "map50_95": float(table.mean())}


def f_score(hits: Sequence[Hits], threshold: float) -> float:
    """2 TP / (found + true) of boxes with this score or more, all classes together."""
    scores = np.concatenate([one.scores for one in hits])
    is_true = np.concatenate([one.is_true_loosely for one in hits])
    is_found = scores >= threshold
    total = int(is_found.sum()) + sum(len(one.true_classes) for one in hits)
    return 2 * float((is_true & is_found).sum()) / total if total else 0.0


def best_threshold(hits: Sequence[Hits]) -> tuple[float, float]:
    """The score with the highest F, and that F; 0.5 and 0 where nothing true was found."""
    scores = np.concatenate([one.scores for one in hits])
    is_true = np.concatenate([one.is_true_loosely for one in hits])
    if not is_true.any():
        return 0.5, 0.0
    order = np.argsort(-scores, kind="stable")
    # A box that was matched keeps its match when worse ones are left out: matching was greedy.
    true = is_true[order].cumsum()
    total = np.arange(1, len(order) + 1) + sum(len(one.true_classes) for one in hits)
    values = 2 * true / total
    best = int(values.argmax())
    # Between this score and the next lower one, so that a little noise changes nothing.
    lower = scores[order[best + 1]] if best + 1 < len(order) else 0.0
    return float((scores[order[best]] + lower) / 2), float(values[best])
