"""What a network is to learn: votes of readers, centres, textures.

Dimensions: N batch, D, H, W voxels of a sample. Everything is computed in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from kits.medical.sampling_config import LossConfig

# A nodule counts as if it filled at least this share of its sample.
SMALLEST_SHARE = 0.005
# Of the focal loss: how much easy cells, and cells beside a centre, count less.
EASY_POWER, BESIDE_POWER = 2, 4
SMOOTH = 1.0  # voxels added to both sides of Dice: a small nodule's gradient stays finite


def losses(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], cfg: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and its parts before they are weighted.

    Args:
        outputs: mask (N, 1, D, H, W), heat (N, 1, ...) and texture (N, 3, ...) at half the size;
            logits.
        batch: votes and weight (N, 1, D, H, W); heat and heat_weight (N, 1, ...); texture (N, ...)
            int64, -1 where nothing is asked.
        cfg: how much each part counts.
    """
    mask, heat = outputs["mask"].float(), outputs["heat"].float()
    texture = outputs["texture"].float()
    parts = {
        "dice": dice_loss(mask, batch["votes"], batch["weight"]),
        "votes": votes_loss(mask, batch["votes"], batch["weight"]),
        "heat": heat_loss(heat, batch["heat"], batch["heat_weight"]),
        "texture": texture_loss(texture, batch["texture"]),
    }
    total = torch.stack([getattr(cfg, name) * value for name, value in parts.items()]).sum()
    return total, parts


def dice_loss(logits: Tensor, votes: Tensor, weight: Tensor) -> Tensor:
    """1 - soft Dice with the readers' votes, over the samples that hold a nodule."""
    chance = logits.sigmoid() * weight
    wanted = votes * weight
    axes = (1, 2, 3, 4)
    both = (chance * wanted).sum(axes)
    total = chance.sum(axes) + wanted.sum(axes)
    dice = (2 * both + SMOOTH) / (total + SMOOTH)
    has_nodule = (wanted.amax(axes) > 0).float()
    return ((1 - dice) * has_nodule).sum() / has_nodule.sum().clamp_min(1)


def votes_loss(logits: Tensor, votes: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of each voxel, summed over a sample and divided by the nodule's voxels."""
    entropy = functional.binary_cross_entropy_with_logits(logits, votes, weight, reduction="none")
    axes = (1, 2, 3, 4)
    size = (votes * weight).sum(axes).clamp_min(SMALLEST_SHARE * votes[0].numel())
    return (entropy.sum(axes) / size).mean()


def heat_loss(logits: Tensor, heat: Tensor, weight: Tensor) -> Tensor:
    """Focal loss whose penalty is lower beside a centre; divided by the number of centres.

    Source: CornerNet (Law and Deng, 2018), as in CenterNet.
    """
    chance = logits.sigmoid()
    is_centre = (heat == 1).float() * weight
    at_centres = (1 - chance) ** EASY_POWER * functional.logsigmoid(logits) * is_centre
    elsewhere = chance**EASY_POWER * functional.logsigmoid(-logits) * (1 - heat) ** BESIDE_POWER
    total = at_centres.sum() + (elsewhere * weight * (heat != 1)).sum()
    return -total / is_centre.sum().clamp_min(1)


def texture_loss(logits: Tensor, texture: Tensor) -> Tensor:
    """Cross-entropy where a texture is known; 0 where it is nowhere."""
    total = functional.cross_entropy(logits, texture, ignore_index=-1, reduction="sum")
    return total / (texture >= 0).sum().clamp_min(1)
