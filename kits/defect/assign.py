"""Which predictions learn which true box: the cheapest ones near its middle (SimOTA, 2107.08430).

Each true box takes as many predictions as its best overlaps add up to; a prediction that two want
goes to the cheaper one. What counts as overlap is IoU mixed with the Wasserstein distance, because
boxes of a few pixels seldom overlap at the beginning.

Dimensions: B predictions of an image, G true boxes, K classes, M candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kits.defect.model_config import LossConfig
from kits.defect.overlap import iou, wasserstein

OVERLAP_COST = 3.0
FAR = 1e5  # a prediction that is no candidate of this box


@dataclass(frozen=True)
class Assigned:
    """M pairs of a prediction and a true box."""

    predictions: Tensor  # (M,) int64 among B
    truths: Tensor  # (M,) int64 among G


@dataclass(frozen=True)
class Reach:
    """How far and how many; auxiliary heads get more."""

    radius: float
    candidates: int
    share: float = 1.0  # of the overlaps' sum

    @classmethod
    def of(cls, cfg: LossConfig) -> Reach:
        """Of the lead head."""
        return cls(cfg.radius, cfg.candidates)

    def wider(self) -> Reach:
        """Of auxiliary heads: recall before precision (YOLOv7's coarse labels)."""
        return Reach(1.5 * self.radius, 2 * self.candidates, 1.5)


@torch.no_grad()
def assign(
    boxes: Tensor,
    scores: Tensor,
    cells: tuple[Tensor, Tensor],
    truths: Tensor,
    classes: Tensor,
    cfg: LossConfig,
    reach: Reach,
) -> Assigned:
    """The predictions of one image that are to find its true boxes.

    Args:
        boxes: (B, 4) float32 corners, as predicted.
        scores: (B, K) float32 probabilities, as predicted.
        cells: (B, 2) middles in pixels and (B,) strides.
        truths: (G, 4) float32 corners.
        classes: (G,) int64.
        cfg: how overlap is measured.
        reach: which predictions are candidates, and how many are taken.
    """
    centres, strides = cells
    middle = (truths[:, :2] + truths[:, 2:]) / 2
    far = (centres[None] - middle[:, None]).abs().amax(-1)
    is_near = far < reach.radius * strides  # (G, B)
    candidates = is_near.any(0).nonzero()[:, 0]
    if not len(candidates):
        return Assigned(candidates, candidates)
    is_near, boxes = is_near[:, candidates], boxes[candidates]
    alike = likeness(boxes[None], truths[:, None], cfg)
    cost = _class_cost(scores[candidates], classes) - OVERLAP_COST * torch.log(alike + 1e-8)
    cost = cost + FAR * ~is_near
    alike = alike * is_near
    number = min(reach.candidates, len(candidates))
    best = alike.topk(number, 1).values.sum(1)
    wanted = (reach.share * best).long().clamp(1, number)
    order = cost.topk(number, 1, largest=False)
    is_taken = torch.arange(number, device=boxes.device) < wanted[:, None]
    is_taken &= order.values < FAR
    chosen = torch.zeros_like(is_near)
    chosen.scatter_(1, order.indices, is_taken)
    # A prediction that several boxes want goes to the cheapest.
    cheapest = torch.where(chosen, cost, torch.inf).argmin(0)
    taken = chosen.any(0).nonzero()[:, 0]
    return Assigned(candidates[taken], cheapest[taken])


def likeness(found: Tensor, true: Tensor, cfg: LossConfig) -> Tensor:
    """IoU and Wasserstein distance, mixed as the configuration says; in [0, 1]."""
    alike = iou(found, true)
    if cfg.nwd_share:
        near = wasserstein(found, true, cfg.nwd_px)
        alike = (1 - cfg.nwd_share) * alike + cfg.nwd_share * near
    return alike


def _class_cost(scores: Tensor, classes: Tensor) -> Tensor:
    """(G, M): cross entropy of each candidate's scores with each true class."""
    found = scores.sqrt().clamp(1e-6, 1 - 1e-6)
    no = -torch.log1p(-found)
    yes = -torch.log(found)
    wanted = functional.one_hot(classes, scores.shape[1]).to(scores)
    return no.sum(1)[None] + wanted @ (yes - no).T
