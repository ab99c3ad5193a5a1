"""What test_distributed.py lets two ranks do: every scenario in one start of torchrun."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor.debug import CommDebugMode

from core.train.callbacks import Callback
from core.train.run import Run
from core.train.trainer import Trainer
from tests.core.train.tiny import QUIET, TinyTask, settings

OPTIM = {"warmup_steps": 3, "ema_decay": 0.9}
EPOCHS = {"epochs": 4, "checkpoint_every_steps": 5}


class Losses(Callback):
    def __init__(self, sigterm_at=None) -> None:
        self.losses, self.sigterm_at = {}, sigterm_at

    def on_step(self, trainer, step, loss):
        self.losses[step] = loss
        # Only one of the ranks hears of it; both have to leave at the same step.
        if step == self.sigterm_at and trainer.world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def run(folder: Path, name: str, task=None, trainer=None, sigterm_at=None) -> dict:
    run_dir = folder / name
    run_dir.mkdir(exist_ok=True)
    watch = Losses(sigterm_at)
    cfg = settings({**QUIET, **EPOCHS, **(trainer or {})}, OPTIM)
    made = Trainer(task or TinyTask(), cfg, [watch], run_dir)
    outcome = ""
    try:
        made.fit()
    except (SystemExit, FloatingPointError) as stop:
        outcome = f"{type(stop).__name__}: {stop}"
    return {"losses": list(watch.losses.values()), "outcome": outcome, "step": made.step}


def collectives(folder: Path, parallel: str) -> list[int]:
    """How many gradient exchanges each batch of one accumulated step made."""
    run_dir = folder / f"collectives {parallel}"
    run_dir.mkdir(exist_ok=True)
    cfg = settings({"parallel": parallel, "accumulate": 3}, {"clip_norm": None})
    task = TinyTask()
    trainer = Trainer(task, cfg, run_dir=run_dir)
    counts = []
    for number, batch in enumerate(task.batches("train"), start=1):
        with trainer._spread.syncing(last=number == 3), CommDebugMode() as mode:
            trainer._spread.step(batch).loss.backward()
        by_name = {str(key): count for key, count in mode.get_comm_counts().items()}
        counts.append(sum(n for key, n in by_name.items() if "reduce" in key))
        if number == 3:
            break
    return counts


def main() -> None:
    folder = Path(sys.argv[1])
    results = {
        "run": str(Run.create("kit", settings(), folder / "runs").path),
        "ddp": run(folder, "ddp"),
        "fsdp": run(folder, "fsdp", trainer={"parallel": "fsdp"}),
        "fsdp fp16": run(folder, "fsdp16", trainer={"parallel": "fsdp", "precision": "fp16"}),
        # 100 = 3 x 32 + 4: the last step of an epoch is smaller, and 97 leaves it one sample.
        "ddp accumulate": run(
            folder, "ddp accumulate", TinyTask(batch_size=8, num=97), {"accumulate": 4}
        ),
        "fsdp accumulate": run(
            folder,
            "fsdp accumulate",
            TinyTask(batch_size=8, num=97),
            {"accumulate": 4, "parallel": "fsdp"},
        ),
        "nan": run(folder, "nan", TinyTask(bad_sample=42)),
        "sigterm": run(folder, "sigterm", trainer={"parallel": "fsdp"}, sigterm_at=8),
        "sigterm, resumed": run(folder, "sigterm", trainer={"parallel": "fsdp"}),
        "half": run(folder, "half", trainer={"parallel": "fsdp"}, sigterm_at=8),
        "auto": run(folder, "auto", trainer={"precision": "auto", "measure_steps": 2}),
        "collectives": {kind: collectives(folder, kind) for kind in ("ddp", "fsdp")},
    }
    rank = dist.get_rank()
    (folder / f"results-{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
