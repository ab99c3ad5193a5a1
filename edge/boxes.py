"""Steps on boxes of detectors."""

from __future__ import annotations

import numpy as np

BLOCK = 256  # boxes that are compared with each other at once


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
    # In blocks, best first: mostly the first few fill the result, however many boxes there are.
    kept: list[int] = []
    for first in range(0, len(boxes), BLOCK):
        block = np.arange(first, min(first + BLOCK, len(boxes)))
        is_alive = ~_covers(boxes, classes, np.array(kept, np.int64), block, iou).any(0)
        block = block[is_alive]
        covered = _covers(boxes, classes, block, block, iou)
        is_alive = np.ones(len(block), bool)
        for at, place in enumerate(block.tolist()):
            if not is_alive[at]:
                continue
            kept.append(place)
            if len(kept) == max_boxes:
                return kept
            is_alive &= ~covered[at]
    return kept


def _covers(
    boxes: np.ndarray, classes: np.ndarray, better: np.ndarray, others: np.ndarray, iou: float
) -> np.ndarray:
    """(better, others): whether a better box overlaps another of its class too much."""
    first, second = boxes[better][:, None], boxes[others][None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    overlap = np.maximum(high - low, 0).prod(-1)
    union = _areas(first) + _areas(second) - overlap
    is_same = classes[better][:, None] == classes[others][None]
    return np.asarray((overlap > iou * union) & is_same)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
