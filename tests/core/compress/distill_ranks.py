"""What test_distill.py lets two ranks do: one distillation on replicas, one on shards."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from core.compress.config import DistillConfig
from core.compress.distill import distill
from core.train.config import OptimConfig, TrainConfig, TrainerConfig
from core.train.trainer import Trainer
from tests.core.compress.test_distill import DENSE, QUIET, STEM, Losses, Net, Volumes


def run(folder: Path, parallel: str) -> list[float]:
    task, watch = Volumes(), Losses()
    # Its statistics are those of a rank's own samples.
    task.model.stem[1] = nn.Identity()
    cfg = TrainConfig(
        TrainerConfig(epochs=3, metric=None, parallel=parallel, **QUIET),
        OptimConfig(lr=0.02, ema_decay=0.9),
    )
    run_dir = folder / f"{parallel}-{os.environ.get('WORLD_SIZE', 'alone')}"
    run_dir.mkdir(exist_ok=True)
    learned = DistillConfig(outputs=DENSE, features=[STEM], warmup_batches=3)
    with distill(task, Net(6), learned) as distilled:
        Trainer(distilled, cfg, [watch], run_dir).fit()
    return watch.losses


def main() -> None:
    folder = Path(sys.argv[1])
    losses = {parallel: run(folder, parallel) for parallel in ("ddp", "fsdp")}
    rank = dist.get_rank() if dist.is_initialized() else "alone"
    (folder / f"losses-{rank}.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
