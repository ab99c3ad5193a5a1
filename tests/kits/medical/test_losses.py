"""Losses on a few voxels, against what they are by hand."""

import pytest
import torch

from kits.medical.losses import dice_loss, heat_loss, losses, texture_loss, votes_loss
from kits.medical.sampling_config import LossConfig

SURE = 20.0  # a logit


def ones(shape=(1, 1, 4, 4, 4)):
    return torch.ones(shape)


def half_votes():
    votes = torch.zeros(1, 1, 4, 4, 4)
    votes[..., :2] = 1
    return votes


def test_a_perfect_mask_costs_nothing():
    votes = half_votes()
    logits = SURE * (2 * votes - 1)
    assert float(dice_loss(logits, votes, ones())) == pytest.approx(0, abs=1e-4)
    assert float(votes_loss(logits, votes, ones())) == pytest.approx(0, abs=1e-4)


def test_an_empty_mask_costs_its_whole_dice():
    votes = half_votes()
    # One voxel is added to both sides.
    assert float(dice_loss(-SURE * ones(), votes, ones())) == pytest.approx(1 - 1 / 33, abs=1e-3)


def test_samples_without_a_nodule_have_no_dice():
    votes = torch.cat([half_votes(), 0 * half_votes()])
    logits = torch.cat([SURE * (2 * half_votes() - 1), SURE * ones()])
    assert float(dice_loss(logits, votes, torch.ones_like(votes))) == pytest.approx(0, abs=1e-4)


def test_what_has_no_weight_does_not_count():
    votes, weight = half_votes(), ones()
    weight[:, :, 2:] = 0
    logits = SURE * (2 * votes - 1)
    wrong = logits.clone()
    wrong[:, :, 2:] *= -1
    for loss in (dice_loss, votes_loss):
        assert float(loss(wrong, votes, weight)) == pytest.approx(
            float(loss(logits, votes, weight)), abs=1e-6
        )


def test_votes_are_soft_targets():
    votes = torch.full((1, 1, 4, 4, 4), 0.25, requires_grad=False)
    logits = torch.logit(votes).requires_grad_()
    votes_loss(logits, votes, ones()).backward()
    assert float(logits.grad.abs().max()) < 1e-6


def test_a_cell_beside_a_centre_costs_less_than_one_far_away():
    heat = torch.zeros(1, 1, 1, 1, 5)
    heat[..., 0], heat[..., 1] = 1, 0.8
    costs = []
    for place in (1, 4):
        logits = torch.full_like(heat, -SURE)
        logits[..., 0] = SURE
        logits[..., place] = 2
        costs.append(float(heat_loss(logits, heat, torch.ones_like(heat))))
    assert costs[0] < 0.01 * costs[1]


def test_heat_is_divided_by_the_number_of_centres():
    heat = torch.zeros(1, 1, 1, 1, 8)
    heat[..., 0] = 1
    logits, weight = torch.zeros_like(heat), torch.zeros_like(heat)
    weight[..., 0] = 1
    one = float(heat_loss(logits, heat, weight))
    two = float(heat_loss(*(torch.cat([value, value]) for value in (logits, heat, weight))))
    assert one == pytest.approx(two)
    assert one == pytest.approx(0.25 * 0.6931, rel=1e-3)


def test_textures_nobody_gave_cost_nothing():
    logits = torch.randn(1, 3, 2, 2, 2)
    assert float(texture_loss(logits, torch.full((1, 2, 2, 2), -1))) == 0


def test_the_loss_is_the_weighted_sum_of_its_parts():
    torch.manual_seed(0)
    outputs = {
        "mask": torch.randn(1, 1, 4, 4, 4),
        "heat": torch.randn(1, 1, 2, 2, 2),
        "texture": torch.randn(1, 3, 2, 2, 2),
    }
    heat = torch.zeros(1, 1, 2, 2, 2)
    heat[..., 0, 0, 0] = 1
    batch = {
        "votes": half_votes(), "weight": ones(), "heat": heat, "heat_weight": torch.ones_like(heat),
        "texture": torch.zeros(1, 2, 2, 2, dtype=torch.int64),
    }  # fmt: skip
    cfg = LossConfig(dice=2, votes=0.5, heat=0.25, texture=3)
    total, parts = losses(outputs, batch, cfg)
    wanted = sum(getattr(cfg, name) * float(value) for name, value in parts.items())
    assert float(total) == pytest.approx(wanted, rel=1e-5)
