"""What the trainer's loop costs beside a loop written by hand, and what bf16 gives on this CPU.

Blocks of steps of both sides alternate in one process, so that a busy machine slows both; the
result is the median of the ratios of neighbouring blocks, with its quartiles, once of wall time
and once of the process's CPU time, which other processes disturb less.
"""

import json
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.kit import Step
from core.train.batches import Batches
from core.train.callbacks import Callback
from core.train.config import OptimConfig, TrainConfig, TrainerConfig
from core.train.optim import build_optimizer, build_schedule
from core.train.precision import Candidate
from core.train.run import environment, write_atomic
from core.train.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "trainer.json"
NUM_SAMPLES, HISTORY, NUM_THREADS = 8192, 16, 1


class Recurrent(nn.Module):
    """About the fraud kit's size: an LSTM over 16 events and a head, 0.12 M parameters."""

    num_features = 32

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(self.num_features, 128, batch_first=True)
        self.head = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 1))

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Flat(nn.Module):
    """A small step, so that the loop weighs more: three layers, 0.17 M parameters."""

    num_features = 16

    def __init__(self):
        super().__init__()
        sizes = (HISTORY * self.num_features, 256, 256, 128)
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(128, 1)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


class Least(nn.Module):
    """Nearly nothing to compute: shows the loop's own time per step, not a ratio to aim at."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(HISTORY * self.num_features, 1)

    def forward(self, x):
        return self.head(x.flatten(1))


class Transformer(nn.Module):
    """Matrix products that fill the CPU: two layers of width 256, 1.6 M parameters."""

    num_features = 256

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(256, 1)

    def forward(self, x):
        return self.head(self.layers(x).mean(1))


class Task:
    def __init__(self, model, batch_size):
        torch.manual_seed(0)
        self.model = model()
        self.batch_size = batch_size
        self.x = torch.randn(NUM_SAMPLES, HISTORY, model.num_features)
        self.y = (self.x[:, -1].sum(1, keepdim=True) > 0).float()

    def collate(self, indices):
        rows = torch.from_numpy(indices)
        return self.x[rows], self.y[rows]

    def batches(self, split):  # noqa: ARG002
        return Batches(len(self.x), self.batch_size, self.collate, seed=0, shuffle=True)

    def step(self, batch):
        x, y = batch
        return Step(nn.functional.binary_cross_entropy_with_logits(self.model(x), y))

    def evaluate(self, split):  # noqa: ARG002
        return {}


class Clock:
    def __init__(self):
        self.start = time.perf_counter(), time.process_time()

    def passed(self):
        """Wall and CPU seconds."""
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


class ByHand:
    """The same training as a script would write it: clipping, schedule, a look at the loss."""

    def __init__(self, task, cfg, num_steps):
        self.task = task
        self.optimizer = build_optimizer(task.model, cfg)
        self.schedule = build_schedule(self.optimizer, cfg, num_steps)
        self.batches = self._forever()
        self.losses = []

    def _forever(self):
        epoch = 0
        while True:
            order = np.random.default_rng((0, epoch)).permutation(NUM_SAMPLES)
            for start in range(0, NUM_SAMPLES, self.task.batch_size):
                yield self.task.collate(order[start : start + self.task.batch_size])
            epoch += 1

    def run(self, num_steps):
        model, parameters = self.task.model, list(self.task.model.parameters())
        start = Clock()
        for _ in range(num_steps):
            x, y = next(self.batches)
            loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.losses.append(loss.item())
        return start.passed()


class Alternate(Callback):
    """Times blocks of the trainer's steps, and runs a block by hand between them."""

    def __init__(self, other, block):
        self.other, self.block = other, block
        self.own_s, self.other_s, self.losses = [], [other.run(block)], []
        self.clock = Clock()

    def on_step(self, trainer, step, loss):  # noqa: ARG002
        self.losses.append(loss)
        if step % self.block == 0:
            self.own_s.append(self.clock.passed())
            self.other_s.append(self.other.run(self.block))
            self.clock = Clock()


def quartiles(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def record(name, result):
    """Add a result to the file, with the machine it came from."""
    facts = environment()
    kept = ("processor", "num_cores", "python", "git_commit", "time")
    machine = {key: facts[key] for key in kept} | {"num_threads": NUM_THREADS}
    machine["load_average"] = round(os.getloadavg()[0], 1)
    machine |= {package: facts["packages"][package] for package in ("torch", "numpy")}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps({**results, name: result | machine}, indent=1) + "\n")
    print(f"\n{name}: {result}")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    yield
    torch.set_num_threads(before)


def ratios(numerators, denominators):
    """Quartiles of each ratio, without the first: it holds the warm-up."""
    return quartiles([a / b for a, b in zip(numerators, denominators, strict=True)][1:])


@pytest.mark.parametrize(
    ("model", "batch_size", "block"),
    [(Least, 64, 100), (Flat, 128, 50), (Recurrent, 32, 25), (Recurrent, 256, 5)],
)
def test_loop_overhead(tmp_path, model, batch_size, block):
    num_steps = 60 * block
    optim = OptimConfig(schedule="cosine")
    by_hand = ByHand(Task(model, batch_size), optim, num_steps)
    alternate = Alternate(by_hand, block)
    trainer = TrainerConfig(epochs=10**6, max_steps=num_steps, metric=None)
    # Progress lines and TensorBoard are on, as in any run.
    task = Task(model, batch_size)
    Trainer(task, TrainConfig(trainer, optim), [alternate], tmp_path).fit()
    # Both sides did the same work, or the ratio means nothing.
    np.testing.assert_array_equal(alternate.losses, by_hand.losses[:num_steps])
    result = {}
    for clock in ("wall", "cpu"):
        own, other = ([s[clock == "cpu"] for s in t] for t in (alternate.own_s, alternate.other_s))
        result[f"by_hand_{clock}_ms"] = round(1000 * statistics.median(other) / block, 3)
        result[f"trainer_{clock}_ms"] = round(1000 * statistics.median(own) / block, 3)
        result[f"{clock}_ratio"] = ratios(own, [(a + b) / 2 for a, b in pairwise(other)])
        if model is Least:
            # The least disturbed blocks tell the loop's own time best.
            own_s, other_s = (
                statistics.quantiles(times, n=10)[0] / block for times in (own, other)
            )
            result[f"overhead_{clock}_us"] = round(1e6 * (own_s - other_s), 1)
    result |= {"steps": num_steps, "parameters": sum(p.numel() for p in task.model.parameters())}
    record(f"loop overhead, {model.__name__.lower()}, batch {batch_size}", result)


@pytest.mark.parametrize(("model", "batch_size"), [(Recurrent, 256), (Transformer, 32)])
def test_bf16_against_fp32(tmp_path, model, batch_size):
    block, num_blocks = 5, 20
    task = Task(model, batch_size)
    cfg = TrainerConfig(max_steps=10, metric=None, tensorboard=False, progress=False)
    trainer = Trainer(task, TrainConfig(cfg, OptimConfig()), run_dir=tmp_path)
    parts = next(trainer.steps())
    times_s = {"fp32": [], "bf16": []}
    for _ in range(num_blocks):
        for precision, blocks in times_s.items():
            trainer.use(Candidate(precision, is_compiled=False))
            start = Clock()
            for _ in range(block):
                assert torch.isfinite(trainer.take_step(parts).loss)
            blocks.append(start.passed())
    result = {}
    for number, clock in enumerate(("wall", "cpu")):
        by_name = {name: [block[number] for block in blocks] for name, blocks in times_s.items()}
        for name, seconds in by_name.items():
            result[f"{name}_{clock}_ms"] = round(1000 * statistics.median(seconds) / block, 3)
        result[f"{clock}_ratio"] = ratios(by_name["bf16"], by_name["fp32"])
    record(f"bf16 against fp32, {model.__name__.lower()}, batch {batch_size}", result)
