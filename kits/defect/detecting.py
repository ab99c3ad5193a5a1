"""From a network's dense answers to the defects of an image of any size. No torch.

Dimensions: N images, P planes, H rows, W columns, B boxes, K classes, D found defects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edge.boxes import nms
from kits.defect.planes import padded

Arrays = Mapping[str, np.ndarray]
Network = Callable[[Arrays], Arrays]  # {"image"} -> {"boxes", "scores"}


@dataclass(frozen=True)
class Detecting:
    """How answers become defects; the same numbers stand in a bundle's `nms` step."""

    multiple: int  # what the sides of an input are multiples of
    score: float = 0.001
    iou: float = 0.6
    max_boxes: int = 300
    # Larger images are looked at in tiles of this side, which share so many pixels.
    tile_px: int = 1280
    overlap_px: int = 128


@dataclass(frozen=True)
class Found:
    """Defects of one image, best first."""

    boxes: np.ndarray  # (D, 4) float32 corners in pixels of the image
    scores: np.ndarray  # (D,) float32
    classes: np.ndarray  # (D,) int64

    def above(self, score: float) -> Found:
        """Those with this score or more."""
        is_kept = self.scores >= score
        return Found(self.boxes[is_kept], self.scores[is_kept], self.classes[is_kept])


def detect(planes: np.ndarray, network: Network, cfg: Detecting) -> Found:
    """The defects of one image.

    Args:
        planes: (P, H, W) uint8.
        network: gives `boxes` (N, B, 4) and `scores` (N, B, K).
        cfg: limits.
    """
    height, width = planes.shape[1:]
    boxes, scores = [], []
    for top, left in _starts(height, width, cfg):
        part = planes[:, top : top + cfg.tile_px, left : left + cfg.tile_px]
        image = padded(part, cfg.multiple)[None].astype(np.float32) / 255
        answer = network({"image": image})
        corners = answer["boxes"][0] + np.array([left, top, left, top], np.float32)
        # All classes of a box: where even the best is too low, the box is of no use.
        is_kept = answer["scores"][0].max(1) >= cfg.score
        boxes.append(corners[is_kept])
        scores.append(answer["scores"][0][is_kept])
    corners = np.concatenate(boxes).clip(0, np.array([width, height, width, height], np.float32))
    return _suppressed(corners, np.concatenate(scores), cfg)


def _suppressed(boxes: np.ndarray, scores: np.ndarray, cfg: Detecting) -> Found:
    kept = nms(boxes[None], scores[None], iou=cfg.iou, score=cfg.score, max_boxes=cfg.max_boxes)
    is_real = kept[2][0] >= 0
    return Found(kept[0][0][is_real], kept[1][0][is_real], kept[2][0][is_real])


def _starts(height: int, width: int, cfg: Detecting) -> Iterator[tuple[int, int]]:
    for top in _along(height, cfg):
        for left in _along(width, cfg):
            yield top, left


def _along(side: int, cfg: Detecting) -> list[int]:
    if side <= cfg.tile_px:
        return [0]
    last = side - cfg.tile_px
    number = -(-last // (cfg.tile_px - cfg.overlap_px)) + 1
    return [round(k * last / (number - 1)) for k in range(number)]
