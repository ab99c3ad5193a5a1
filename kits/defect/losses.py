"""What a network's maps cost beside the true boxes of a batch.

Dimensions: N batch, B predictions of an image, G true boxes at most, K classes, M assigned pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from kits.defect.assign import Assigned, Reach, assign, likeness
from kits.defect.graph import Network
from kits.defect.head import Predictions
from kits.defect.model_config import LossConfig
from kits.defect.overlap import complete_iou, wasserstein

FOCUS = 2.0  # power by which what is known already counts less


def losses(
    network: Network, output: Mapping[str, Tensor], batch: Mapping[str, Tensor], cfg: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total, a mean over images, and its parts.

    Args:
        network: says how its maps are read.
        output: what it gave while training.
        batch: `boxes` (N, G, 4) corners in pixels and `classes` (N, G), -1 where there is none.
        cfg: weights.
    """
    lead = network.head.predictions(network.maps_of(output))
    pairs = _assign_all(lead, batch, cfg, Reach.of(cfg))
    total, parts = _head_losses(lead, pairs, batch, cfg)
    if network.auxiliary is not None and network.training and cfg.auxiliary:
        # What the lead head found guides the auxiliary one: same strides, same cells.
        guided = network.auxiliary.predictions(network.maps_of(output, "auxiliary"))
        more = _assign_all(lead, batch, cfg, Reach.of(cfg).wider())
        beside, _ = _head_losses(guided, more, batch, cfg)
        parts["auxiliary"] = beside
        total = total + cfg.auxiliary * beside
    return total, parts


def _assign_all(
    found: Predictions, batch: Mapping[str, Tensor], cfg: LossConfig, reach: Reach
) -> list[Assigned]:
    boxes, scores = found.boxes.detach(), found.scores().detach()
    pairs = []
    for image, classes in enumerate(batch["classes"]):
        is_real = classes >= 0
        truths = batch["boxes"][image][is_real].float()
        pairs.append(
            assign(
                boxes[image], scores[image], (found.centres, found.strides), truths,
                classes[is_real], cfg, reach,
            )
        )  # fmt: skip
    return pairs


def _head_losses(
    found: Predictions, pairs: list[Assigned], batch: Mapping[str, Tensor], cfg: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    image = torch.cat([torch.full_like(one.predictions, k) for k, one in enumerate(pairs)])
    place = torch.cat([one.predictions for one in pairs])
    truth = torch.cat([one.truths for one in pairs])
    boxes = found.boxes[image, place]
    # Real boxes come first in their row, so that places among them are places in the row.
    true_boxes, true_classes = batch["boxes"][image, truth].float(), batch["classes"][image, truth]
    quality = _quality(boxes, true_boxes, image * batch["classes"].shape[1] + truth, cfg)
    number = max(len(place), 1)
    share = cfg.nwd_share
    apart = (1 - share) * (1 - complete_iou(boxes, true_boxes))
    if share:
        apart = apart + share * (1 - wasserstein(boxes, true_boxes, cfg.nwd_px))
    parts = {"box": apart.sum() / number}
    weight = quality.sum().clamp_min(1)
    if found.objectness is None:
        target = torch.zeros_like(found.classes)
        target[image, place, true_classes] = quality
        parts["classes"] = _focused(found.classes, target).sum() / weight
    else:
        target = torch.zeros_like(found.objectness)
        target[image, place] = quality
        parts["objectness"] = _focused(found.objectness, target).sum() / weight
        wanted = functional.one_hot(true_classes, found.classes.shape[-1]).float()
        chosen = found.classes[image, place]
        parts["classes"] = (
            functional.binary_cross_entropy_with_logits(chosen, wanted, reduction="sum") / number
        )
    weights = {"box": cfg.box, "classes": cfg.classes, "objectness": cfg.objectness}
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum(), parts


def _quality(found: Tensor, true: Tensor, which: Tensor, cfg: LossConfig) -> Tensor:
    """(M,) what a prediction's score should be: how good it is beside the best of its true box.

    The best one is told 1, however bad: boxes of long thin defects are bad for long, and scores
    that said so would teach a network that there is no defect.

    Args:
        found: (M, 4) predicted boxes.
        true: (M, 4) theirs.
        which: (M,) int64 number of the true box in the batch.
        cfg: how overlap is measured.
    """
    alike = likeness(found.detach(), true, cfg)
    if not len(which):
        return alike
    best = alike.new_zeros(int(which.max()) + 1).scatter_reduce(0, which, alike, "amax")
    return alike / best[which].clamp_min(1e-6)


def _focused(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy with a share, less where it is right already (arXiv 2006.04388)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return entropy * (logits.detach().sigmoid() - target).abs() ** FOCUS
