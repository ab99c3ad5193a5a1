"""A task small enough to train in milliseconds, also run as a process of its own (see ``main``)."""

import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from core.kit import Step
from core.train.batches import Batches
from core.train.callbacks import Callback
from core.train.config import OptimConfig, TrainConfig, TrainerConfig
from core.train.trainer import Trainer

NUM_SAMPLES, NUM_FEATURES = 96, 6
QUIET = {"progress": False, "tensorboard": False, "num_threads": 1}


class TinyModel(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(NUM_FEATURES, 8)
        # FSDP2 shards each block by itself.
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.norm = nn.BatchNorm1d(8) if dropout else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        # A sum over the one column: FSDP2 warns when a model returns a view.
        return self.head(self.dropout(self.norm(x))).sum(1)


class TinyTask:
    """A noisy linear function; ``bad_sample`` has the value ``bad_value`` as its target."""

    def __init__(
        self, batch_size=16, dropout=0.0, bad_sample=None, bad_value=float("nan"), num=NUM_SAMPLES
    ) -> None:
        torch.manual_seed(0)
        self.batch_size = batch_size
        self.model = TinyModel(dropout)
        numbers = np.random.default_rng(1)
        self.x = torch.tensor(numbers.normal(size=(num, NUM_FEATURES)), dtype=torch.float32)
        self.y = self.x.sum(1) + 0.1 * torch.tensor(numbers.normal(size=num), dtype=torch.float32)
        if bad_sample is not None:
            self.y[bad_sample] = bad_value

    def batches(self, split: str) -> Iterable[tuple[Tensor, Tensor]]:
        return Batches(
            len(self.x),
            self.batch_size,
            lambda indices: (self.x[indices], self.y[indices]),
            seed=7,
            shuffle=split == "train",
        )

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        x, y = batch
        error = self.model(x).float() - y
        return Step(error.square().mean(), {"bias": float(error.detach().mean())})

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        # A draw, as a bootstrap would make: resuming must bring the generators back too.
        draw = torch.rand(1).item() + np.random.random()  # noqa: NPY002
        loss = (self.model(self.x) - self.y).square().mean()
        return {"loss": loss.item(), "draw": draw}

    def example(self) -> dict[str, Tensor]:
        return {"x": self.x[:1]}


class Curve(Callback):
    """Writes ``step loss`` (exactly, as hexadecimal floats) for each step, at once to the file."""

    def __init__(self, path: Path, kill_at=None, signal_number=signal.SIGKILL) -> None:
        self.path, self.kill_at, self.signal_number = path, kill_at, signal_number

    def on_step(self, trainer, step, loss):
        with self.path.open("a") as stream:
            stream.write(f"{step} {loss.hex()}\n")
            stream.flush()
        if step == self.kill_at:
            os.kill(os.getpid(), self.signal_number)


def read_curve(path: Path, first_step=1) -> list[float]:
    """Loss by step; a step that was done twice counts as done last."""
    rows = dict(line.split() for line in path.read_text().splitlines())
    assert list(rows) == [str(first_step + i) for i in range(len(rows))]
    return [float.fromhex(loss) for loss in rows.values()]


def settings(trainer=None, optim=None) -> TrainConfig:
    return TrainConfig(TrainerConfig(**{**QUIET, **(trainer or {})}), OptimConfig(**(optim or {})))


def train(run_dir, task=None, trainer=None, optim=None, callbacks=(), first_step=1) -> list[float]:
    """The loss curve of a run in this process, new or continued."""
    run_dir.mkdir(exist_ok=True)
    curve = Curve(run_dir / "curve.txt")
    Trainer(task or TinyTask(), settings(trainer, optim), [curve, *callbacks], run_dir).fit()
    return read_curve(curve.path, first_step)


def main() -> None:
    job = json.loads(sys.argv[1])
    run_dir = Path(job["run_dir"])
    number = getattr(signal, job.get("signal", "SIGKILL"))
    curve = Curve(run_dir / "curve.txt", job.get("kill_at"), number)
    cfg = settings(job["trainer"], job["optim"])
    Trainer(TinyTask(**job["task"]), cfg, [curve], run_dir).fit()


if __name__ == "__main__":
    main()
