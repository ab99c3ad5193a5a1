"""The summands of a distillation loss, one for each thing that a student learns of its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from core.compress.config import DistillConfig, FeatureConfig, OutputLossConfig, RelationConfig
from core.compress.distances import (
    binary_divergence,
    boundary_weight,
    channels_last,
    class_divergence,
    feature_distance,
    pooled,
    sample_similarity,
    soft_dice_loss,
    voxel_similarity,
    weighted_mean,
)
from core.compress.teacher import Opinion

# Where another output says what counts: below this probability nothing does.
WHERE_FLOOR = 0.1
Pair = FeatureConfig | RelationConfig
CONVOLUTIONS = {4: nn.Conv2d, 5: nn.Conv3d}


def used_outputs(cfg: DistillConfig) -> dict[str, OutputLossConfig]:
    """The outputs that weigh something."""
    return {name: one for name, one in cfg.outputs.items() if one.weight * cfg.weight > 0}


def used_features(cfg: DistillConfig) -> list[FeatureConfig]:
    """The features that weigh something."""
    return [one for one in cfg.features if one.weight * cfg.weight > 0]


def used_relations(cfg: DistillConfig) -> list[RelationConfig]:
    """The relations that weigh something."""
    return [one for one in cfg.relations if one.weight * cfg.weight > 0]


def needs_label(cfg: DistillConfig) -> bool:
    """Whether a loss asks the task for its targets."""
    return any(
        one.boundary.strength > 0 and one.boundary.of == "label"
        for one in used_outputs(cfg).values()
    )


def build_projections(
    features: Sequence[FeatureConfig], student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
) -> nn.ModuleList:
    """One module for each feature: the student's channels to the teacher's, or nothing to do.

    Args:
        features: which pairs.
        student: module name -> what it gives, to see its channels.
        teacher: the same.
    Raises:
        ValueError: widths differ where nothing projects.
    """
    made = nn.ModuleList()
    # The same projections whatever was drawn before, and nothing drawn from the caller's generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for one in features:
            ours = student[one.student]
            inner = channels_last(ours, one.channel_axis).shape[-1]
            outer = channels_last(teacher[one.teacher], one.channel_axis).shape[-1]
            if one.loss == "attention":
                made.append(nn.Identity())
            elif one.is_projected:
                made.append(_projection(ours, inner, outer, one.channel_axis))
            elif inner != outer:
                raise ValueError(
                    f"distill.features: {one.student} has {inner} channels, {one.teacher} {outer}; "
                    "set is_projected"
                )
            else:
                made.append(nn.Identity())
    return made


def _projection(features: Tensor, inner: int, outer: int, channel_axis: int | None) -> nn.Module:
    # A 1x1 convolution leaves channels where they are; elsewhere they are moved to the end first.
    if features.ndim in CONVOLUTIONS and channel_axis in (None, 1):
        convolution: nn.Module = CONVOLUTIONS[features.ndim](inner, outer, 1)
        return convolution
    return _LastAxis(inner, outer, channel_axis)


class _LastAxis(nn.Module):
    """A linear map of the channels, wherever they are."""

    def __init__(self, inner: int, outer: int, channel_axis: int | None) -> None:
        super().__init__()
        self.linear, self.channel_axis = nn.Linear(inner, outer), channel_axis

    def forward(self, features: Tensor) -> Tensor:
        moved: Tensor = self.linear(channels_last(features, self.channel_axis))
        axis = self.channel_axis
        return moved if axis is None else moved.movedim(-1, axis)


def compute_terms(
    cfg: DistillConfig,
    projections: nn.ModuleList,
    student: Opinion,
    teacher: Opinion,
    targets: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Every summand by name, each a scalar that holds its own weight but not `cfg.weight`."""
    terms: dict[str, Tensor] = {}
    for name, output in used_outputs(cfg).items():
        label = targets.get(name)
        terms[name] = output.weight * _output_loss(name, output, student, teacher.outputs, label)
    for feature, projection in zip(used_features(cfg), projections, strict=True):
        distance = _feature_loss(feature, projection, student.features, teacher.features)
        terms[f"feature/{feature.student}"] = feature.weight * distance
    for relation in used_relations(cfg):
        distance = _relation_loss(relation, student.features, teacher.features)
        terms[f"relation/{relation.student}"] = relation.weight * distance
    return terms


def _output_loss(
    name: str,
    cfg: OutputLossConfig,
    student: Opinion,
    teacher: Mapping[str, Tensor],
    label: Tensor | None,
) -> Tensor:
    ours, theirs = student.outputs[name], teacher[name]
    weight, floor = _weight(name, cfg, teacher, label)
    if cfg.loss == "mse":
        return weighted_mean((ours - theirs).square(), weight, floor)
    divergence = binary_divergence if cfg.loss == "bce" else class_divergence
    loss = weighted_mean(divergence(ours, theirs, cfg.temperature), weight, floor)
    if cfg.dice_weight:
        shares = torch.sigmoid if cfg.loss == "bce" else _class_shares
        loss = loss + cfg.dice_weight * soft_dice_loss(shares(ours), shares(theirs), weight)
    return loss


def _weight(
    name: str, cfg: OutputLossConfig, teacher: Mapping[str, Tensor], label: Tensor | None
) -> tuple[Tensor | None, float]:
    """What each number of an output counts (None: all alike), and the least sum of it."""
    weight: Tensor | None = None
    if cfg.boundary.strength > 0:
        if cfg.boundary.of == "label":
            assert label is not None
            shares = label.float()
        else:
            shares = torch.sigmoid(teacher[name])
            if cfg.loss == "kl":
                shares = _class_shares(teacher[name])
        if cfg.loss == "kl":
            # All that is not the first class, the background.
            shares = 1 - shares[:, :1]
        objects = (shares >= cfg.boundary.threshold).cpu().numpy()
        weight = torch.from_numpy(boundary_weight(objects, cfg.boundary)).to(teacher[name].device)
    if not cfg.where:
        return weight, 0.0
    there = torch.sigmoid(teacher[cfg.where])
    if there.shape[1] != 1 or there.shape[2:] != teacher[name].shape[2:]:
        raise ValueError(
            f"distill.outputs.{name}.where={cfg.where} has shape {tuple(there.shape)} beside "
            f"{tuple(teacher[name].shape)}; name an output of one channel with the same positions"
        )
    there = torch.where(there >= WHERE_FLOOR, there, 0.0)
    # Where nothing counts the loss is 0; one position alone counts in full.
    return (there if weight is None else weight * there), 1.0


def _class_shares(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1)


def _feature_loss(
    cfg: FeatureConfig,
    projection: nn.Module,
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
) -> Tensor:
    ours = channels_last(projection(student[cfg.student]), cfg.channel_axis)
    theirs = channels_last(teacher[cfg.teacher], cfg.channel_axis)
    ours, theirs = _same_positions(ours, theirs)
    return feature_distance(cfg.loss, ours, theirs)


def _relation_loss(
    cfg: RelationConfig, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
) -> Tensor:
    ours = channels_last(student[cfg.student], cfg.channel_axis)
    theirs = channels_last(teacher[cfg.teacher], cfg.channel_axis)
    if cfg.of == "samples":
        return (sample_similarity(ours) - sample_similarity(theirs)).square().mean()
    ours, theirs = _same_positions(ours, theirs)
    sizes = tuple(min(size, cfg.positions_per_axis) for size in ours.shape[1:-1])
    ours, theirs = pooled(ours, sizes), pooled(theirs, sizes)
    return (voxel_similarity(ours) - voxel_similarity(theirs)).square().mean()


def _same_positions(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both averaged to the coarser one's positions."""
    if student.ndim != teacher.ndim:
        raise ValueError(
            f"features of shapes {tuple(student.shape)} and {tuple(teacher.shape)} (channels last) "
            "have different axes; name modules whose results have the same"
        )
    pairs = zip(student.shape[1:-1], teacher.shape[1:-1], strict=True)
    sizes = tuple(min(pair) for pair in pairs)
    if not sizes:
        return student, teacher
    return pooled(student, sizes), pooled(teacher, sizes)
