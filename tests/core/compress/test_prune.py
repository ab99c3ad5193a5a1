"""Pruning tiny models to a share of their FLOPs, and weights alone in 8 bits."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from core.compress.config import PruneConfig
from core.compress.prune import prune
from core.compress.trial import count_module_flops
from core.compress.weights import weight_only
from core.kit import Step
from core.train.batches import Batches
from core.train.config import OptimConfig, TrainConfig, TrainerConfig


class Residual(nn.Module):
    """Convolutions with a residual sum, a grouped one and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 16, 1)
        )
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.body(x))
        return self.head(x.mean((2, 3)))


class Sequence(nn.Module):
    """A mapping in; an LSTM and a layer whose weight is used outside of its call."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 12)
        self.lstm = nn.LSTM(12, 8, batch_first=True)
        self.outside = nn.Linear(8, 8)
        self.hidden = nn.Linear(8, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, inputs):
        x = torch.tanh(self.embed(inputs["x"]) * inputs["gate"].unsqueeze(-1))
        x = nn.functional.linear(self.lstm(x)[0][:, -1], self.outside.weight)
        return self.head(torch.relu(self.hidden(x)))


class Pictures:
    """Bright halves: left or right."""

    def __init__(self, model, inputs):
        self.model, self.inputs = model, inputs
        self.label = torch.arange(64) % 2

    def batches(self, split):
        def cut(rows):
            return {name: value[rows] for name, value in self.inputs.items()}, self.label[rows]

        return Batches(64, 16, cut, seed=0, shuffle=split == "train")

    def call(self, inputs):
        return self.model(inputs) if len(inputs) > 1 else self.model(*inputs.values())

    def step(self, batch):
        inputs, label = batch
        return Step(nn.functional.cross_entropy(self.call(inputs), label))

    @torch.no_grad()
    def evaluate(self, split):
        right = self.call(self.inputs).argmax(1) == self.label
        return {"accuracy": right.float().mean().item()}

    def example(self):
        return {name: value[:1] for name, value in self.inputs.items()}


def pictures(size=8):
    torch.manual_seed(0)
    x = torch.randn(64, 1, size, size)
    x[1::2, :, :, : size // 2] += 1
    return Pictures(Residual(), {"x": x})


def settings(epochs=2):
    trainer = TrainerConfig(
        epochs=epochs, metric="accuracy", metric_mode="max", progress=False, tensorboard=False,
        num_threads=1,
    )  # fmt: skip
    return TrainConfig(trainer, OptimConfig(lr=1e-2))


def test_prune_halves_the_flops_trains_on_and_exports(tmp_path):
    task = pictures()
    made = prune(task, PruneConfig(rounds=2, latency_runs=2), settings(), tmp_path / "run")
    before, after = made.compression.table
    assert after.flops / before.flops == pytest.approx(0.5, abs=0.02)
    assert after.bytes < before.bytes
    assert after.metric > 0.9
    assert made.compression.float_nodes == ("head",)
    # Summed layers lose the same channels.
    assert made.model.stem.out_channels == made.model.body[3].out_channels < 16
    inputs = {"x": task.inputs["x"][:1].numpy()}
    session = onnxruntime.InferenceSession(made.compression.path)
    with torch.no_grad():
        wanted = task.model.eval()(task.inputs["x"][:1]).numpy()
    np.testing.assert_allclose(session.run(None, inputs)[0], wanted, atol=1e-5)
    told = json.loads((tmp_path / "run" / "pruned.json").read_text())
    assert told["prune"]["flops_share"] == 0.5
    assert made.checkpoint.is_relative_to(tmp_path / "run" / "round-2")


def test_layers_that_cannot_be_pruned_are_listed_with_the_reason(tmp_path):
    torch.manual_seed(0)
    inputs = {"x": torch.randn(64, 3, 4), "gate": torch.rand(64, 3)}
    task = Pictures(Sequence(), inputs)
    cfg = PruneConfig(flops_share=0.7, rounds=1, tolerance=0.05, latency_runs=2)
    made = prune(task, cfg, settings(epochs=1), tmp_path / "run")
    assert made.model.lstm.hidden_size == 8
    assert made.model.outside.weight.shape == (8, 8)
    assert made.model.hidden.out_features < 32
    notes = " ".join(made.compression.notes)
    assert "lstm keeps its channels: a LSTM is not pruned" in notes
    assert {"lstm", "outside", "head"} <= set(made.compression.float_nodes)


def test_a_share_that_cannot_be_reached_is_refused(tmp_path):
    cfg = PruneConfig(flops_share=0.1, max_layer_share=0.2, rounds=1)
    with pytest.raises(ValueError, match=r"prune.flops_share=0.1 cannot be reached"):
        prune(pictures(), cfg, settings(), tmp_path / "run")


def test_a_kept_module_that_does_not_exist_is_refused(tmp_path):
    cfg = PruneConfig(kept_modules=["steam"])
    with pytest.raises(ValueError, match=r"\['steam'\] are not modules.*choose from stem"):
        prune(pictures(), cfg, settings(), tmp_path / "run")


def test_flops_of_an_lstm_count_its_weights_at_every_step():
    model = nn.LSTM(3, 5, batch_first=True)
    flops = count_module_flops(model, {"x": torch.zeros(2, 7, 3)}, lambda m, e: m(e["x"]))
    assert flops == 2 * 2 * 7 * (4 * 5 * 3 + 4 * 5 * 5)


def test_weights_alone_in_8_bits_take_a_quarter_of_the_memory():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    x = torch.randn(8, 64)
    wanted = model(x).detach()

    def metric(module):
        return -((module(x) - wanted).norm() / wanted.norm()).item()

    made = weight_only(model, {"x": x}, metric=metric, runs=2)
    before, after = made.table
    assert after.bytes < 0.3 * before.bytes
    assert -0.02 < after.metric < before.metric == 0
    assert before.flops == 2 * 2 * 64 * 128
    assert type(model[0].weight) is nn.Parameter
    with pytest.raises(ValueError, match="ReLU has no linear layer"):
        weight_only(nn.ReLU(), {"x": x})
