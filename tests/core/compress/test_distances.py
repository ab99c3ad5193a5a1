"""Summands of distillation losses against closed forms and sums written out."""

import math

import numpy as np
import pytest
import torch

from core.compress.config import BoundaryConfig
from core.compress.detections import heat_of_boxes
from core.compress.distances import (
    binary_divergence,
    boundary_weight,
    class_divergence,
    feature_distance,
    pooled,
    sample_similarity,
    soft_dice_loss,
    voxel_similarity,
    weighted_mean,
)

# Closed forms in double precision against float32.
FLOAT32 = 1e-5


def logit(p):
    return math.log(p / (1 - p))


def test_binary_divergence_is_that_of_two_coins():
    p, q = 0.2, 0.7
    ours, theirs = torch.tensor([[logit(p), logit(q)]]), torch.tensor([[logit(q)] * 2])
    wanted = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert binary_divergence(ours, theirs).tolist()[0] == pytest.approx([wanted, 0], abs=FLOAT32)
    # Logits twice as large at twice the temperature are the same coins.
    hot = binary_divergence(2 * ours, 2 * theirs, temperature=2.0)
    assert hot[0, 0].item() == pytest.approx(4 * wanted, rel=FLOAT32)


def test_binary_divergence_has_the_gradient_of_the_cross_entropy():
    ours = torch.tensor([[0.3, -2.0]], requires_grad=True)
    theirs = torch.tensor([[1.0, 40.0]])
    binary_divergence(ours, theirs, 2.0).sum().backward()
    wanted = 2.0 * (torch.sigmoid(ours / 2) - torch.sigmoid(theirs / 2))
    torch.testing.assert_close(ours.grad, wanted.detach())


def test_class_divergence_is_that_of_two_dice():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.1, 0.8])
    ours = (p.log() + 3).view(1, 3, 1, 1)
    theirs = q.log().view(1, 3, 1, 1)
    found = class_divergence(ours, theirs)
    assert found.shape == (1, 1, 1, 1)
    assert found.item() == pytest.approx((q * (q / p).log()).sum().item(), rel=FLOAT32)
    assert class_divergence(theirs - 5, theirs, 3.0).item() == pytest.approx(0, abs=FLOAT32)
    hot = class_divergence(2 * ours, 2 * theirs, temperature=2.0)
    assert hot.item() == pytest.approx(4 * found.item(), rel=FLOAT32)


def test_soft_dice_loss_is_zero_at_equal_shares_and_one_apart():
    p = torch.tensor([0.3, 0.6]).view(1, 1, 2)
    q = torch.tensor([0.0, 0.5]).view(1, 1, 2)
    assert soft_dice_loss(p, p).item() == pytest.approx(0, abs=FLOAT32)
    wanted = 1 - 2 * 0.3 / (0.09 + 0.36 + 0.25)
    assert soft_dice_loss(p, q).item() == pytest.approx(wanted, rel=FLOAT32)
    only_first = torch.tensor([1.0, 0.0]).view(1, 1, 2)
    assert soft_dice_loss(p, q, only_first).item() == pytest.approx(1, rel=FLOAT32)


def test_weighted_mean_of_little_weight_is_little():
    values = torch.tensor([2.0, 4.0])
    assert weighted_mean(values, None).item() == 3
    assert weighted_mean(values, torch.tensor([3.0, 1.0])).item() == 2.5
    assert weighted_mean(values, torch.tensor([0.1, 0.0]), floor=1.0).item() == pytest.approx(0.2)


def test_boundary_weight_falls_with_distance_and_size():
    objects = np.zeros((1, 1, 1, 1, 40), bool)
    objects[..., 5:7] = True  # two voxels
    objects[..., 25:33] = True  # eight
    cfg = BoundaryConfig(strength=3.0, width_voxels=1.5, reference_voxels=4.0, size_power=1.0)
    weight = boundary_weight(objects, cfg)[0, 0, 0, 0]

    def near(distance, size):
        return 1 + 3 * (4 / size) * math.exp(-(distance**2) / (2 * 1.5**2))

    np.testing.assert_allclose(weight[5:7], near(0.5, 2), rtol=FLOAT32)
    np.testing.assert_allclose(weight[[4, 7]], near(0.5, 2), rtol=FLOAT32)
    np.testing.assert_allclose(weight[[3, 8]], near(1.5, 2), rtol=FLOAT32)
    np.testing.assert_allclose(weight[[25, 24, 26]], [near(d, 8) for d in (0.5, 0.5, 1.5)], FLOAT32)
    np.testing.assert_allclose(weight[28], near(3.5, 8), rtol=FLOAT32)
    assert weight[16] == 1
    assert weight.dtype == np.float32


def test_boundary_weight_is_capped_and_needs_an_edge():
    objects = np.zeros((2, 1, 6, 6), bool)
    objects[0, 0, 2, 2] = True
    objects[1] = True
    cfg = BoundaryConfig(strength=9.0, max_weight=5.0, background=0.5)
    weight = boundary_weight(objects, cfg)
    assert weight[0, 0, 2, 2] == 5
    assert (weight[1] == 0.5).all()


def test_feature_distances_are_what_they_say():
    ours = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(1, 2, 2)
    theirs = torch.tensor([[1.0, 0.0], [2.0, 0.0]]).view(1, 2, 2)
    # Squared differences 0, 0, 4, 4; the teacher's squares 1, 0, 4, 0.
    assert feature_distance("mse", ours, theirs).item() == pytest.approx(8 / 5)
    # The first position points the same way, the second across.
    assert feature_distance("cosine", ours, theirs).item() == pytest.approx(0.5)
    # Energies 0.5 and 2 in both.
    assert feature_distance("attention", ours, theirs).item() == pytest.approx(0, abs=FLOAT32)
    other = torch.tensor([[2.0, 0.0], [1.0, 0.0]]).view(1, 2, 2)
    wanted = 2 * ((4 - 1) / math.sqrt(17)) ** 2
    assert feature_distance("attention", other, theirs).item() == pytest.approx(wanted)


def test_similarities_do_not_ask_for_the_same_channels():
    features = torch.tensor([[3.0, 0.0], [4.0, 4.0]]).view(2, 1, 2)
    half = math.sqrt(0.5)
    torch.testing.assert_close(sample_similarity(features), torch.tensor([[1, half], [half, 1]]))
    turned = features.flip(-1) * 7
    torch.testing.assert_close(sample_similarity(turned), sample_similarity(features))
    positions = features.view(1, 2, 2)
    torch.testing.assert_close(voxel_similarity(positions)[0], torch.tensor([[1, half], [half, 1]]))


def test_pooling_averages_positions_and_refuses_other_axes():
    features = torch.arange(8.0).view(1, 2, 2, 2, 1)
    assert pooled(features, (1, 1, 2)).flatten().tolist() == [3.0, 4.0]
    with pytest.raises(ValueError, match="cannot be averaged"):
        pooled(features, (1, 2))


def test_boxes_become_peaks_as_high_as_their_scores():
    found = [
        {
            # x from 8 to 24, y from 20 to 28: at stride 4 the centre is position (6, 4).
            "boxes": torch.tensor([[8.0, 20, 24, 28], [0, 0, 8, 8]]),
            "scores": torch.tensor([0.8, 0.9]),
            "labels": torch.tensor([1, 3]),
        },
        {k: torch.zeros(0, *tail) for k, tail in (("boxes", [4]), ("scores", []), ("labels", []))},
    ]
    heat = torch.sigmoid(heat_of_boxes(found, (10, 8), stride=4))
    assert heat.shape == (2, 1, 10, 8)
    # Half a position from the centre along both axes; sigma is 4 / 6 and 0.5 positions.
    wanted = 0.8 * math.exp(-0.5 * ((0.5 / (4 / 6)) ** 2 + (0.5 / 0.5) ** 2))
    assert heat[0, 0, 5, 3].item() == pytest.approx(wanted, rel=1e-4)
    assert heat[0, 0, 0, 0] < 0.001
    assert heat[1].max() < 0.001
    with pytest.raises(ValueError, match="two corners"):
        heat_of_boxes(found, (10, 8, 4), stride=4)
