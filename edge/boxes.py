"""Steps on boxes of detectors."""

from __future__ import annotations

import numpy as np


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    iou: float,
    score: float = 0.0,
    max_boxes: int = 300,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy non-maximum suppression, each class by itself; one box may win in several classes.

    Args:
        boxes: (N, B, 4) corners x1, y1, x2, y2.
        scores: (N, B, K) of each class.
        iou: a box that overlaps a better one of its class by more is dropped.
        score: a box and class below is not considered.
        max_boxes: rows of the result; the best of all classes.
    Returns:
        (N, max_boxes, 4) boxes, (N, max_boxes) scores, (N, max_boxes) int64 classes; best first;
        rows that found nothing hold 0, 0 and -1.
    Raises:
        ValueError: the shapes do not belong together, or a limit is out of its range.
    Source: torchvision.ops.batched_nms, compared in tests/edge/test_ops.py.
    """
    if not (0 <= iou <= 1 and max_boxes >= 1):
        raise ValueError(f"nms.iou={iou} is not within 0..1, or max_boxes={max_boxes} is below 1")
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.shape[:2] != boxes.shape[:2]:
        raise ValueError(
            f"nms: boxes={boxes.shape} and scores={scores.shape} are not (N, B, 4) and (N, B, K)"
        )
    num = len(boxes)
    kept_boxes = np.zeros((num, max_boxes, 4), boxes.dtype)
    kept_scores = np.zeros((num, max_boxes), scores.dtype)
    kept_classes = np.full((num, max_boxes), -1, np.int64)
    for image in range(num):
        # (scores.shape: B, K) -> pairs of a box and a class
        places, classes = np.nonzero(scores[image] >= score)
        values = scores[image][places, classes]
        order = np.argsort(-values, kind="stable")
        places, classes, values = places[order], classes[order], values[order]
        kept = _greedy(boxes[image][places], classes, iou, max_boxes)
        kept_boxes[image, : len(kept)] = boxes[image][places[kept]]
        kept_scores[image, : len(kept)] = values[kept]
        kept_classes[image, : len(kept)] = classes[kept]
    return kept_boxes, kept_scores, kept_classes


def _greedy(boxes: np.ndarray, classes: np.ndarray, iou: float, max_boxes: int) -> list[int]:
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for best in range(len(boxes)):
        if not alive[best]:
            continue
        kept.append(best)
        if len(kept) == max_boxes:
            break
        width = np.minimum(x2[best], x2) - np.maximum(x1[best], x1)
        height = np.minimum(y2[best], y2) - np.maximum(y1[best], y1)
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        union = areas[best] + areas - overlap
        alive &= ~((overlap > iou * union) & (classes == classes[best]))
    return kept
