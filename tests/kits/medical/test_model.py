"""Sizes, work, contract and folding of the networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kits.medical.model import UNet, build_network, fold_batch_norm
from kits.medical.model_config import (
    SmallTeacherConfig,
    StudentConfig,
    TeacherConfig,
    UNetConfig,
)
from kits.medical.network import Network

TINY = UNetConfig("tiny", [4, 6, 8])
TINY_STUDENT = UNetConfig(
    "tiny", [4, 6], decoder_convolutions=1, upsampling="nearest", negative_slope=0.0
)
PATCH = 128  # voxels along each axis, as the published FLOPs are counted
MOST_STUDENT_KFLOP = 60.7  # 1/30 of the teacher's


def num_parameters_m(cfg):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(cfg).parameters()) / 1e6


def kflop_per_voxel(cfg):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(cfg).eval()(torch.empty(1, 1, PATCH, PATCH, PATCH))
    return counter.get_total_flops() / PATCH**3 / 1e3


def disturbed(cfg):
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = build_network(cfg)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 1, 16, 16, 16) * 400 - 500)
    return network.eval()


def test_the_teacher_has_its_published_size():
    assert int(num_parameters_m(TeacherConfig()) * 10) / 10 == 125.6
    assert kflop_per_voxel(TeacherConfig()) == pytest.approx(1821, rel=0.01)


def test_the_student_is_small_and_does_a_thirtieth_of_the_work():
    assert num_parameters_m(StudentConfig()) <= 8
    assert kflop_per_voxel(StudentConfig()) <= MOST_STUDENT_KFLOP
    assert kflop_per_voxel(StudentConfig()) * 30 <= kflop_per_voxel(TeacherConfig())


def test_the_heads_do_little_of_the_work():
    with torch.device("meta"), FlopCounterMode(display=False, depth=2) as counter:
        UNet(StudentConfig()).eval()(torch.empty(1, 1, 64, 64, 64))
    heads = sum(
        sum(counter.flop_counts[f"UNet.{name}"].values())
        for name in ("mask", "shared", "heat", "texture")
    )
    assert heads < 0.02 * counter.get_total_flops()


@pytest.mark.parametrize(
    "cfg",
    [
        TINY,
        TINY_STUDENT,
        SmallTeacherConfig(widths=[4, 6, 8]),
        replace(TINY, flat=1),
        replace(TINY, flat=1, upsampling="nearest"),
    ],
)
def test_outputs_have_the_shapes_of_the_contract_at_any_multiple(cfg):
    network = Network(build_network(cfg))
    image = np.zeros((2, 1, 3 * cfg.multiple, 4 * cfg.multiple, 8), np.float32)
    found = network({"image": image})
    depth, height, width = image.shape[2:]
    half = (depth // 2, height // 2, width // 2)
    assert {name: value.shape for name, value in found.items()} == {
        "mask": (2, 1, depth, height, width),
        "heat": (2, 1, *half),
        "texture": (2, 3, *half),
    }
    assert all(value.dtype == np.float32 for value in found.values())


def test_values_outside_the_window_are_cut_inside_the_network():
    network = Network(disturbed(TINY))
    image = np.full((1, 1, 8, 8, 8), -1000, np.float32)
    image[..., 4:] = 400
    far = np.where(image < 0, -3024, 3000).astype(np.float32)
    for name, value in network({"image": image}).items():
        np.testing.assert_array_equal(value, network({"image": far})[name])


def test_an_untrained_network_expects_few_nodules():
    found = Network(build_network(TINY))({"image": np.full((1, 1, 8, 8, 8), -800, np.float32)})
    assert found["mask"].mean() < -1
    assert found["heat"].mean() < -3


@pytest.mark.parametrize("cfg", [TINY, TINY_STUDENT, SmallTeacherConfig(widths=[4, 6, 8])])
def test_folding_changes_nothing_beyond_rounding(cfg):
    network = disturbed(cfg)
    folded = fold_batch_norm(network)
    image = {"image": np.random.default_rng(0).normal(-500, 300, (1, 1, 8, 16, 8))}
    before, after = Network(network)(image), Network(folded)(image)
    for name, value in before.items():
        # Sums in another order.
        np.testing.assert_allclose(after[name], value, atol=1e-5)
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm3d) for m in network.modules())


def test_flat_levels_leave_the_slices_alone():
    cfg = replace(TINY, flat=1)
    assert (cfg.multiple, cfg.reductions) == (4, (2, 4, 4))
    network, deepest = build_network(cfg), []
    network.down[-1].register_forward_hook(lambda _, __, found: deepest.append(found.shape))
    network(torch.zeros(1, 1, 6, 16, 16))
    assert deepest == [(1, 8, 3, 4, 4)]


def test_every_weight_gets_a_gradient():
    network = build_network(TINY_STUDENT)
    outputs = network(torch.randn(1, 1, 8, 8, 8) * 300 - 500)
    sum(value.square().mean() for value in outputs.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [8]}, "two levels"),
        ({"norm": "group"}, "batch, instance"),
        ({"upsampling": "linear"}, "transposed, nearest"),
        ({"convolutions": 0}, "below 1"),
        ({"flat": 1}, "from 0 to 0"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**{"name": "x", "widths": [4, 8], **change})
