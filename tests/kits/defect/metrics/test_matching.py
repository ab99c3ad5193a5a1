import numpy as np
import torch

from kits.defect.data.image_set import LabelledImage
from kits.defect.detecting import Found
from kits.defect.metrics.average_precision import (
    average_precisions,
    best_threshold,
    f_score,
    hits_of,
    map_metrics,
)
from kits.defect.metrics.matching import MAP_THRESHOLDS, Scored, match


def scored(truths, found):
    """Truths (class, box), found (class, score, box)."""
    found = sorted(found, key=lambda row: -row[1])
    image = LabelledImage(
        "a",
        np.zeros((100, 100), np.uint8),
        np.array([box for _, box in truths], np.float32).reshape(-1, 4),
        np.array([kind for kind, _ in truths], np.int64),
    )
    return Scored(
        image,
        Found(
            np.array([box for *_, box in found], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in found], np.float32),
            np.array([kind for kind, *_ in found], np.int64),
        ),
    )


A, B = (10, 10, 30, 30), (50, 50, 80, 80)


def test_each_true_box_is_found_once_by_the_best_score():
    one = scored([(0, A)], [(0, 0.9, A), (0, 0.8, A)])
    assert match(one, (0.5,))[:, 0].tolist() == [0, -1]


def test_a_worse_overlap_counts_at_lower_thresholds_only():
    one = scored([(0, A)], [(0, 0.9, (10, 10, 30, 24))])
    assert match(one, (0.5, 0.69, 0.75))[0].tolist() == [0, 0, -1]


def test_the_class_matters_unless_told_otherwise():
    one = scored([(0, A)], [(1, 0.9, A)])
    assert match(one, (0.5,))[0, 0] == -1
    assert match(one, (0.5,), by_class=False)[0, 0] == 0


def test_matching_is_that_of_ultralytics():
    from kits.defect.yolo.quiet import import_ultralytics

    import_ultralytics()
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import box_iou

    class Validator(BaseValidator):
        def __init__(self):
            self.iouv = torch.tensor(MAP_THRESHOLDS)

    rng = np.random.default_rng(0)
    for _ in range(20):
        low = rng.uniform(0, 40, (12, 2))
        truths = np.concatenate([low, low + rng.uniform(5, 30, (12, 2))], 1)
        found = truths[rng.integers(0, 12, 30)] + rng.normal(0, 2, (30, 4))
        classes = rng.integers(0, 2, 30)
        one = scored(
            [(k % 2, box) for k, box in enumerate(truths)],
            [
                (int(k), 1 - n / 100, box)
                for n, (k, box) in enumerate(zip(classes, found, strict=True))
            ],
        )
        boxes, true = (torch.from_numpy(b) for b in (one.found.boxes, one.truth.boxes_px))
        theirs = Validator().match_predictions(
            torch.from_numpy(one.found.classes), torch.from_numpy(one.truth.classes),
            box_iou(true, boxes),
        )  # fmt: skip
        assert np.array_equal(match(one, MAP_THRESHOLDS) >= 0, theirs.numpy())


def test_scores_of_a_case_by_hand():
    # Class 0: a hit, a false one, a miss. Class 1: a hit.
    hits = [
        hits_of(scored([(0, A), (1, B)], [(0, 0.9, A), (1, 0.7, B)])),
        hits_of(scored([(0, A)], [(0, 0.8, B)])),
    ]
    precisions = average_precisions(hits)
    # Recall 0.5 at precision 1, nothing beyond: 101 points, the one at 0.5 in between.
    assert 0.49 < precisions[0][0] < 0.51
    assert precisions[1][0] > 0.99
    assert abs(map_metrics(hits)["map50"] - (precisions[0][0] + precisions[1][0]) / 2) < 1e-9
    assert f_score(hits, 0.75) == 2 * 1 / (2 + 3)
    assert f_score(hits, 0.5) == 2 * 2 / (3 + 3)
    threshold, best = best_threshold(hits)
    # Without the last box F is 2/5, with it 4/6.
    assert best == 4 / 6
    assert threshold < 0.7


def test_nothing_true_is_no_score():
    hits = [hits_of(scored([], [(0, 0.9, A)]))]
    assert map_metrics(hits) == {"map50": 0.0, "map50_95": 0.0}
    assert best_threshold(hits) == (0.5, 0.0)
    assert f_score(hits, 0.95) == 0.0
