import json
import random
import subprocess
import sys
from pathlib import Path

from tests.core.train.tiny import QUIET, TinyTask, read_curve, train

ROOT = Path(__file__).parents[3]


def test_kill_and_sigterm_at_random_steps_then_resume_bit_equal(tmp_path):
    trainer = {**QUIET, "epochs": 5, "checkpoint_every_steps": 4}
    optim = {"warmup_steps": 5, "ema_decay": 0.9}
    unbroken = train(tmp_path / "unbroken", TinyTask(dropout=0.2), trainer, optim)
    run_dir = tmp_path / "broken"
    run_dir.mkdir()

    def start(**stop):
        job = {"run_dir": str(run_dir), "trainer": trainer, "optim": optim, **stop}
        command = [sys.executable, "-m", "tests.core.train.tiny"]
        job["task"] = {"dropout": 0.2}
        done = subprocess.run(
            [*command, json.dumps(job)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr[-2000:]

    kill_at, term_at = random.randrange(5, 12), random.randrange(14, 25)
    assert start(kill_at=kill_at)[0] == -9
    assert start(kill_at=term_at, signal="SIGTERM") == (0, "")
    # SIGTERM lost no step.
    last = max(path.name for path in (run_dir / "checkpoints").glob("step-*"))
    assert last == f"step-{term_at:09d}"
    assert start() == (0, "")
    assert read_curve(run_dir / "curve.txt") == unbroken, (kill_at, term_at)
