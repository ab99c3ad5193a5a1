import pytest
import torch
from torchvision.ops import box_iou, complete_box_iou_loss

from kits.defect.overlap import complete_iou, iou, wasserstein


def boxes(number, seed):
    torch.manual_seed(seed)
    low = torch.rand(number, 2) * 50
    return torch.cat([low, low + 1 + torch.rand(number, 2) * 40], 1)


def test_iou_is_torchvisions():
    first, second = boxes(9, 0), boxes(7, 1)
    assert torch.allclose(iou(first[:, None], second[None]), box_iou(first, second), atol=1e-6)


def test_complete_iou_and_its_gradient_are_torchvisions():
    first, second = boxes(20, 2), boxes(20, 3)
    ours, theirs = first.clone().requires_grad_(), first.clone().requires_grad_()
    value, expected = 1 - complete_iou(ours, second), complete_box_iou_loss(theirs, second)
    assert torch.allclose(value, expected, atol=1e-5)
    value.sum().backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_wasserstein_tells_boxes_apart_that_do_not_overlap():
    truth = torch.tensor([0.0, 0.0, 2.0, 2.0])
    near = torch.tensor([3.0, 0.0, 5.0, 2.0], requires_grad=True)
    far = torch.tensor([9.0, 0.0, 11.0, 2.0])
    assert iou(near, truth) == iou(far, truth) == 0
    value = wasserstein(near, truth, 12.0)
    assert value > wasserstein(far, truth, 12.0)
    assert float(value.detach()) == pytest.approx(float(torch.exp(torch.tensor(-3 / 12))), rel=1e-4)
    value.backward()
    assert (near.grad != 0).any()
