"""The directory of a run, and what it says about where its numbers came from."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Run:
    """``runs/<kit>/<UTC time>/`` with config.yaml, environment.json, data.json, metrics.json."""

    path: Path
    is_writer: bool = True

    @classmethod
    def create(cls, kit: str, cfg: Any, runs_dir: str | Path) -> Run:
        """Make the directory, and write the resolved config and the environment into it.

        With ``cfg.trainer.run_dir`` set the run goes on in that directory: its first files stay,
        and those of this start are written beside them with the time in their names.

        Args:
            kit: name of the kit, a folder in ``runs_dir``.
            cfg: the config as a dataclass.
            runs_dir: where runs are kept.
        Raises:
            ValueError: ``cfg.trainer.run_dir`` is set and is not a directory.
        """
        trainer = getattr(cfg, "trainer", None)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from core.train.distributed import World

            world = World.start(getattr(trainer, "device", "auto"))
            return cls(
                world.broadcast(_make(kit, cfg, Path(runs_dir)) if world.rank == 0 else Path()),
                is_writer=world.rank == 0,
            )
        return cls(_make(kit, cfg, Path(runs_dir)))

    def record_data(self, fingerprint: str, **facts: Any) -> None:
        """Write data.json: the sha256 of the data, and facts about it."""
        self._write_json("data.json", {"sha256": fingerprint, **facts})

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json, whole or not at all."""
        self._write_json("metrics.json", dict(metrics))

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        if self.is_writer:
            write_atomic(self.path / name, json.dumps(content, indent=2) + "\n")


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a crash leaves the old one or the new one, never a part."""
    part = path.with_name(f".part-{path.name}")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Bring a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def environment() -> dict[str, Any]:
    """Commit, package versions and machine; the commit is null outside the project's git."""
    state: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        **_git_state(Path(__file__)),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "packages": {d.name: d.version for d in sorted(metadata.distributions(), key=_name)},
    }
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        state["accelerator"] = torch.cuda.get_device_name()
    return state


def _make(kit: str, cfg: Any, runs_dir: Path) -> Path:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
    given = getattr(getattr(cfg, "trainer", None), "run_dir", None)
    suffix = ""
    if given is not None:
        path = Path(given)
        if not path.is_dir():
            raise ValueError(f"trainer.run_dir={given!r} is not a directory; name a run to go on")
        suffix = f"-{now}" if (path / "config.yaml").exists() else ""
    else:
        path = runs_dir / kit / now
        path.mkdir(parents=True)
    text = yaml.safe_dump(json.loads(json.dumps(asdict(cfg), default=str)), sort_keys=False)
    write_atomic(path / f"config{suffix}.yaml", text)
    facts = {"kit": kit, **environment()}
    write_atomic(path / f"environment{suffix}.json", json.dumps(facts, indent=2) + "\n")
    return path


def _git_state(file: Path) -> dict[str, Any]:
    git = shutil.which("git")

    def ask(*arguments: str) -> str | None:
        if git is None:
            return None
        command = [git, "-C", str(file.parent), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository.
    if ask("ls-files", "--error-unmatch", file.name) is None:
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": ask("rev-parse", "HEAD"), "git_dirty": bool(ask("status", "--porcelain"))}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _name(distribution: metadata.Distribution) -> str:
    return distribution.name.lower()
