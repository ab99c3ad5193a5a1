import torch

from kits.defect.assign import Reach, assign
from kits.defect.graph import build_network
from kits.defect.head import cell_centres
from kits.defect.losses import losses
from kits.defect.model_config import LossConfig, QuarterKitConfig, TinyConfig

TRUTHS = torch.tensor([[4.0, 4.0, 12.0, 12.0], [20.0, 20.0, 28.0, 28.0]])


def grid(side=32, stride=4):
    centres = cell_centres(torch.empty(side // stride, side // stride), stride)
    middle = centres.flatten(1).T
    return torch.cat([middle - 4, middle + 4], 1), (middle, torch.full((len(middle),), stride))


def test_the_nearest_predictions_of_the_right_class_are_assigned():
    boxes, cells = grid()
    scores = torch.full((len(boxes), 2), 0.01)
    found = assign(boxes, scores, cells, TRUTHS, torch.tensor([0, 1]), LossConfig(), Reach(2.5, 10))
    middle = cells[0][found.predictions]
    truth = (TRUTHS[:, :2] + TRUTHS[:, 2:]) / 2
    assert set(found.truths.tolist()) == {0, 1}
    assert ((middle - truth[found.truths]).abs().amax(1) < 2.5 * 4).all()
    # Nobody learns two boxes.
    assert len(found.predictions.unique()) == len(found.predictions)


def test_the_class_decides_between_equal_boxes():
    boxes = torch.tensor([[4.0, 4.0, 12.0, 12.0]]).repeat(2, 1)
    cells = torch.tensor([[8.0, 8.0]]).repeat(2, 1), torch.full((2,), 4.0)
    scores = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    found = assign(boxes, scores, cells, TRUTHS[:1], torch.tensor([0]), LossConfig(), Reach(2.5, 1))
    assert found.predictions.tolist() == [1]


def test_no_truth_gives_no_pair():
    boxes, cells = grid()
    found = assign(
        boxes, torch.rand(len(boxes), 2), cells, torch.empty(0, 4),
        torch.empty(0, dtype=torch.int64), LossConfig(), Reach(2.5, 10),
    )  # fmt: skip
    assert len(found.predictions) == len(found.truths) == 0


def test_auxiliary_heads_are_told_more():
    boxes, cells = grid()
    arguments = boxes, torch.full((len(boxes), 1), 0.01), cells, TRUTHS
    arguments = (*arguments, torch.tensor([0, 0]), LossConfig())
    lead, wider = (assign(*arguments, reach) for reach in (Reach(2.5, 10), Reach(2.5, 10).wider()))
    assert set(lead.predictions.tolist()) < set(wider.predictions.tolist())


def trained(cfg, loss, most_steps):
    """The loss at every step and its last parts, until both have become small."""
    torch.manual_seed(0)
    network = build_network(cfg, 1, 2).train()
    image = torch.full((2, 1, 64, 64), 0.5)
    image[0, :, 8:24, 8:24], image[1, :, 30:40, 36:56] = 1.0, 0.0
    batch = {
        "boxes": torch.tensor([[[8.0, 8.0, 24.0, 24.0]], [[36.0, 30.0, 56.0, 40.0]]]),
        "classes": torch.tensor([[0], [1]]),
    }
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    values = []
    for _ in range(most_steps):
        total, parts = losses(network, network(image), batch, loss)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(float(total.detach()))
        if values[-1] < 0.4 * values[0] and float(parts["box"].detach()) < 0.3:
            break
    return values, parts


def test_both_heads_learn_two_boxes():
    for cfg in (QuarterKitConfig(attention="none"), TinyConfig(width=0.25)):
        values, parts = trained(cfg, LossConfig(), 60)
        assert values[-1] < 0.4 * values[0], cfg.name
        assert float(parts["box"].detach()) < 0.3, cfg.name


def test_every_head_is_in_the_loss():
    cfg = QuarterKitConfig()
    network = build_network(cfg, 1, 2).train()
    batch = {"boxes": torch.tensor([[[8.0, 8.0, 24.0, 24.0]]]), "classes": torch.tensor([[0]])}
    total, parts = losses(network, network(torch.rand(1, 1, 64, 64)), batch, LossConfig())
    total.backward()
    assert set(parts) == {"box", "classes", "auxiliary"}
    assert all(p.grad is not None for p in network.parameters())


def test_images_without_a_box_train_too():
    network = build_network(QuarterKitConfig(), 1, 2).train()
    batch = {"boxes": torch.zeros(2, 1, 4), "classes": torch.full((2, 1), -1)}
    total, _ = losses(network, network(torch.rand(2, 1, 64, 64)), batch, LossConfig())
    total.backward()
    assert torch.isfinite(total)


def test_the_best_prediction_of_a_thin_box_learns_to_say_so_however_bad_it_is():
    """A scratch of 60 x 4 pixels overlaps none of an untrained network's boxes by much."""
    torch.manual_seed(0)
    network = build_network(QuarterKitConfig(attention="none"), 1, 2).train()
    batch = {"boxes": torch.tensor([[[2.0, 30.0, 62.0, 34.0]]]), "classes": torch.tensor([[0]])}
    output = network(torch.rand(1, 1, 64, 64))
    maps = network.maps_of(output)
    for one in maps:
        one.retain_grad()
    _, parts = losses(network, output, batch, LossConfig())
    parts["classes"].backward()
    falling = torch.cat([one.grad[:, :, 4].flatten() for one in maps])
    # Untrained scores are 0.01: a target near 0 would be as small a step as that.
    assert falling.min() < -0.5
