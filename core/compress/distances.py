"""How far a student's numbers are from its teacher's: the summands of a distillation loss.

Dimensions: N samples, C channels or classes, ... any axes of space or time, K positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from core.compress.config import BoundaryConfig

EPSILON = 1e-8
# Beyond so many widths of the edge nothing is added to a voxel's weight.
REACH = 3.0
# Number of axes of space -> averaging to given sizes.
POOLS: dict[int, Callable[[Tensor, Any], Tensor]] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


def binary_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of two probabilities for every logit, times temperature squared.

    The cross-entropy with the teacher's probability, less the teacher's own entropy: 0 where both
    agree, with the same gradient.

    Args:
        student: logits of any shape.
        teacher: logits of the same shape.
        temperature: what both are divided by.
    Returns:
        of the same shape, 0 or more.
    """
    ours, theirs = student / temperature, teacher / temperature
    target = torch.sigmoid(theirs)
    cross = functional.binary_cross_entropy_with_logits(ours, target, reduction="none")
    own = functional.binary_cross_entropy_with_logits(theirs, target, reduction="none")
    return (cross - own) * temperature**2


def class_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of two distributions over classes, times temperature squared.

    Args:
        student: (N, C, ...) logits.
        teacher: the same.
        temperature: what both are divided by.
    Returns:
        (N, 1, ...), 0 or more.
    """
    ours = torch.log_softmax(student / temperature, dim=1)
    theirs = torch.log_softmax(teacher / temperature, dim=1)
    divergence = (theirs.exp() * (theirs - ours)).sum(1, keepdim=True)
    return divergence * temperature**2


def soft_dice_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - 2 sum(w p q) / sum(w (p p + q q)) of two (N, C, ...) probabilities, a mean over (N, C).

    Squares make it 0 exactly where both agree, whatever the probabilities are.
    """
    weight = torch.ones_like(teacher) if weight is None else weight.expand_as(teacher)
    axes = tuple(range(2, student.ndim))
    overlap = (weight * student * teacher).sum(axes)
    whole = (weight * (student.square() + teacher.square())).sum(axes)
    return (1 - (2 * overlap + EPSILON) / (whole + EPSILON)).mean()


def weighted_mean(values: Tensor, weight: Tensor | None, floor: float = EPSILON) -> Tensor:
    """Sum of weighted values over the sum of weights, which counts as `floor` at least."""
    if weight is None:
        return values.mean()
    weight = weight.expand_as(values)
    return (weight * values).sum() / weight.sum().clamp_min(floor)


def boundary_weight(objects: np.ndarray, cfg: BoundaryConfig) -> np.ndarray:
    """How much each voxel counts for its distance to the edge of an object, and that one's size.

    background + strength * exp(-d^2 / (2 width^2)) * (reference / size)^power near each connected
    object, d being voxels to its edge, inside and outside; the largest where there are several.

    Args:
        objects: (N, C, ...) bool; one to three axes of space.
        cfg: strength, width, and how size counts.
    Returns:
        (N, C, ...) float32, `background` where no object is near, or one that has no edge.
    """
    weight = np.full(objects.shape, cfg.background, np.float32)
    pad = int(np.ceil(REACH * cfg.width_voxels)) + 1
    for index in np.ndindex(objects.shape[:2]):
        labels, number = ndimage.label(objects[index])
        sizes = np.bincount(labels.ravel(), minlength=number + 1)
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            window = tuple(
                slice(max(0, part.start - pad), min(size, part.stop + pad))
                for part, size in zip(box, labels.shape, strict=True)
            )
            inside = labels[window] == label
            if inside.all():
                continue
            # Edges lie between voxels, half a voxel before the nearest one on the other side.
            distance = ndimage.distance_transform_edt(inside)
            distance = np.where(inside, distance, ndimage.distance_transform_edt(~inside)) - 0.5
            height = cfg.strength * (cfg.reference_voxels / sizes[label]) ** cfg.size_power
            near = cfg.background + height * np.exp(-(distance**2) / (2 * cfg.width_voxels**2))
            part = weight[index][window]
            np.maximum(part, np.minimum(near, cfg.max_weight), out=part)
    return weight


def channels_last(features: Tensor, channel_axis: int | None) -> Tensor:
    """Features with their channels as the last axis: axis 1 of pictures and volumes, else the last.

    Raises:
        ValueError: there is no such axis.
    """
    axis = channel_axis if channel_axis is not None else (1 if features.ndim >= 4 else -1)
    if not -features.ndim <= axis < features.ndim or axis == 0:
        raise ValueError(
            f"channel_axis={axis} is no axis of features of shape {tuple(features.shape)}; set it"
        )
    return features.movedim(axis, -1)


def feature_distance(kind: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of features with the channels last, (N, ..., C).

    Args:
        kind: mse: mean squared difference over the teacher's mean square; cosine: mean of
            1 - cosine of each position's channels; attention: squared distance of the two unit
            vectors that each sample's positions make by their mean squares, over N.
        student: as many channels as the teacher, but for attention.
        teacher: constant.
    Source: attention as in Zagoruyko and Komodakis, "Paying more attention to attention", 2017.
    """
    if kind == "mse":
        return (student - teacher).square().mean() / teacher.square().mean().clamp_min(EPSILON)
    if kind == "cosine":
        return 1 - functional.cosine_similarity(student, teacher, dim=-1).mean()
    ours, theirs = (
        functional.normalize(features.square().mean(-1).flatten(1), dim=1)
        for features in (student, teacher)
    )
    return (ours - theirs).square().sum(1).mean()


def sample_similarity(features: Tensor) -> Tensor:
    """(N, ..., C) -> (N, N): cosine of every pair of samples, all their features one vector."""
    rows = functional.normalize(features.flatten(1), dim=1)
    return rows @ rows.T


def voxel_similarity(features: Tensor) -> Tensor:
    """(N, ..., C) -> (N, K, K): cosine of every pair of positions of a sample."""
    rows = functional.normalize(features.flatten(1, -2), dim=-1)
    return rows @ rows.transpose(1, 2)


def pooled(features: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """(N, ..., C) averaged to these sizes of its one to three axes of space.

    Raises:
        ValueError: it has no such number of axes.
    """
    if tuple(features.shape[1:-1]) == sizes:
        return features
    number = features.ndim - 2
    if number not in POOLS or len(sizes) != number:
        raise ValueError(
            f"features of shape {tuple(features.shape)} cannot be averaged to {sizes} positions; "
            "name modules whose results have as many axes"
        )
    average = POOLS[number](features.movedim(-1, 1), sizes)
    return average.movedim(1, -1)
