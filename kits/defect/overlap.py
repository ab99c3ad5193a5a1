"""How alike two boxes are: intersection over union, its complete form, and Wasserstein distance.

Boxes are (..., 4) corners x1 y1 x2 y2 in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-7


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes that broadcast against each other."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    inside = (high - low).clamp_min(0).prod(-1)
    total = _area(first) + _area(second) - inside
    return inside / (total + EPS)


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU less the distance of centres and the difference of shapes (arXiv 2005.03572).

    Returns:
        (...) in (-2, 1]; gradients also where boxes do not touch.
    """
    overlap = iou(first, second)
    span = torch.maximum(first[..., 2:], second[..., 2:])
    span = span - torch.minimum(first[..., :2], second[..., :2])
    apart = _centre(first) - _centre(second)
    distance = apart.square().sum(-1) / (span.square().sum(-1) + EPS)
    angle = _angle(first) - _angle(second)
    shape = (4 / math.pi**2) * angle.square()
    with torch.no_grad():
        weight = shape / (1 - overlap + shape + EPS)
    return overlap - distance - weight * shape


def wasserstein(found: Tensor, true: Tensor, least_px: float) -> Tensor:
    """exp(-distance / scale) of the boxes as Gaussians (NWD, arXiv 2110.13389).

    The scale, a distance that counts 1/e, is the true box's side (of a square of its area): with
    one scale for all, large boxes would be infinitely far from each other.

    Args:
        found: boxes.
        true: boxes.
        least_px: of the scale.
    Returns:
        (...) in (0, 1].
    """
    apart = _centre(found) - _centre(true)
    sides = (_sides(found) - _sides(true)) / 2
    square = apart.square().sum(-1) + sides.square().sum(-1)
    scale = _area(true).sqrt().clamp_min(least_px)
    return torch.exp(-torch.sqrt(square + EPS) / scale)


def _sides(box: Tensor) -> Tensor:
    return box[..., 2:] - box[..., :2]


def _area(box: Tensor) -> Tensor:
    return _sides(box).prod(-1)


def _centre(box: Tensor) -> Tensor:
    return (box[..., :2] + box[..., 2:]) / 2


def _angle(box: Tensor) -> Tensor:
    sides = _sides(box)
    return torch.atan(sides[..., 0] / (sides[..., 1] + EPS))
