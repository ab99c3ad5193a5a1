import math

import pytest
import torch
from torch import nn

from core.train.config import OptimConfig
from core.train.optim import Ema, build_optimizer, build_schedule


def rates(num_steps, total=None, **options):
    """Learning rate of each step."""
    optimizer = build_optimizer(nn.Linear(2, 2), OptimConfig(lr=1.0, **options))
    schedule = build_schedule(optimizer, OptimConfig(lr=1.0, **options), total)
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


def test_warmup_is_linear_and_the_cosine_reaches_its_floor():
    seen = rates(14, total=14, warmup_steps=4, min_lr_share=0.1)
    assert seen[:4] == pytest.approx([0.01 + 0.99 * i / 4 for i in range(4)])
    assert seen[4:] == pytest.approx([0.1 + 0.9 * cosine(i / 10) for i in range(10)])


def test_warm_restarts_grow_by_their_factor():
    seen = rates(14, schedule="warm_restarts", restart_steps=2, restart_factor=2)
    waves = [cosine(i / n) for n in (2, 4, 8) for i in range(n)]
    assert seen == pytest.approx(waves)


def test_warmup_comes_before_warm_restarts():
    seen = rates(7, schedule="warm_restarts", restart_steps=2, warmup_steps=2)
    assert seen == pytest.approx([0.01, 0.505, 1, 0.5, 1, 0.5, 1])


def test_constant_needs_no_end():
    assert rates(5, schedule="constant") == [1.0] * 5
    assert rates(4, schedule="constant", warmup_steps=2) == pytest.approx([0.01, 0.505, 1, 1])


def test_cosine_asks_for_the_end():
    with pytest.raises(ValueError, match=r"optim\.schedule='cosine' needs the number of steps"):
        rates(1)
    with pytest.raises(ValueError, match=r"optim\.warmup_steps=5 is not below the run's 5 steps"):
        rates(1, total=5, warmup_steps=5)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_optimizer_is_fused_and_decays_matrices_only(name):
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    model[0].bias.requires_grad_(requires_grad=False)
    optimizer = build_optimizer(model, OptimConfig(name=name, weight_decay=0.3))
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert decays == {
        id(model[0].weight): 0.3,
        id(model[1].weight): 0.0,
        id(model[1].bias): 0.0,
    }
    assert all(group["fused"] for group in optimizer.param_groups)


def test_the_optimizer_asks_for_something_to_train():
    with pytest.raises(ValueError, match="Linear has 0 trainable parameters"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(requires_grad=False), OptimConfig())


def test_ema_averages_and_gives_the_weights_back():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    ema = Ema(model, decay=0.75)
    for value in (2.0, 4.0):
        nn.init.constant_(model.weight, value)
        ema.update()
    # ((1 x .75 + 2 x .25) x .75 + 4 x .25)
    assert ema.weights["weight"].item() == 1.9375
    with ema.applied():
        assert model.weight.item() == 1.9375
    assert model.weight.item() == 4.0
    assert torch.equal(ema.weights["weight"], torch.tensor([[1.9375]]))
