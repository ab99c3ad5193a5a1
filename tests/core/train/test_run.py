import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from core.train import run as run_module
from core.train.config import TrainConfig, TrainerConfig
from core.train.run import Run, write_atomic


@dataclass
class KitConfig(TrainConfig):
    window: tuple[int, int] = (1, 2)
    where: Path = field(default_factory=lambda: Path("data"))


def read(path):
    return json.loads(path.read_text())


def test_a_run_says_where_its_numbers_come_from(tmp_path):
    run = Run.create("fraud", KitConfig(), tmp_path)
    assert run.path.parent == tmp_path / "fraud"
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["optim"]["lr"] == 1e-3
    assert (config["window"], config["where"]) == ([1, 2], "data")
    environment = read(run.path / "environment.json")
    assert environment["kit"] == "fraud"
    assert environment["packages"]["torch"].startswith("2.")
    assert environment["num_cores"] >= 1
    assert {"git_commit", "git_dirty", "python", "processor", "memory_mib"} <= environment.keys()
    run.record_data("ab12", rows=3)
    run.write_metrics({"ap": 0.5, "smoke": True})
    assert read(run.path / "data.json") == {"sha256": "ab12", "rows": 3}
    assert read(run.path / "metrics.json") == {"ap": 0.5, "smoke": True}


def test_a_continued_run_keeps_its_first_files(tmp_path):
    path = Run.create("fraud", TrainConfig(), tmp_path).path
    before = (path / "config.yaml").read_text()
    cfg = TrainConfig(trainer=TrainerConfig(run_dir=str(path), log_every_steps=1))
    assert Run.create("fraud", cfg, tmp_path).path == path
    assert (path / "config.yaml").read_text() == before
    assert len(list(path.glob("config-*.yaml"))) == len(list(path.glob("environment-*.json"))) == 1
    cfg = TrainConfig(trainer=TrainerConfig(run_dir=str(path / "nowhere")))
    with pytest.raises(ValueError, match=r"trainer\.run_dir='.*nowhere' is not a directory"):
        Run.create("fraud", cfg, tmp_path)


def test_the_commit_is_that_of_the_project(tmp_path):
    git = shutil.which("git")
    if git is None:
        assert run_module._git_state(tmp_path / "a.py") == {"git_commit": None, "git_dirty": None}
        return
    # Inside somebody's repository, but no part of it.
    file = tmp_path / "a.py"
    file.write_text("")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]

    def run(*arguments):
        subprocess.run([git, "-C", str(tmp_path), *identity, *arguments], check=True)

    run("init", "-q")
    assert run_module._git_state(file)["git_commit"] is None
    run("add", "a.py")
    run("commit", "-q", "-m", "first")
    state = run_module._git_state(file)
    assert len(state["git_commit"]) == 40
    assert state["git_dirty"] is False
    file.write_text("x = 1")
    assert run_module._git_state(file)["git_dirty"] is True


def test_write_atomic_leaves_the_old_text_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_atomic(path, "old")

    def crash(_):
        raise OSError("disk full")

    monkeypatch.setattr(run_module.os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_only_the_first_rank_writes(tmp_path):
    Run(tmp_path, is_writer=False).write_metrics({"ap": 1.0})
    assert list(tmp_path.iterdir()) == []
