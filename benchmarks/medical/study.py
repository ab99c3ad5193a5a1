"""What all items share: where files lie, fresh processes, spreads, results, tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from core.train.run import environment, write_atomic

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "medical.json"
WORK = ROOT / "build" / "medical"
PACKAGES = (
    "deepkits", "gdcm", "highdicom", "monai", "nnunetv2", "numpy", "onnxruntime", "openvino",
    "pydicom", "python-gdcm", "scipy", "simpleitk", "torch",
)  # fmt: skip
LIMIT_S = 3600


@dataclass(frozen=True)
class Study:
    """One item of the benchmark while it runs."""

    quick: bool = False  # to see that it works; its numbers mean nothing
    run: Path | None = None  # a trained student; None: one that saw a few steps
    rounds: int = 3
    threads: int = len(os.sched_getaffinity(0))

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Item:
    """One question of the benchmark."""

    run: Callable[[Study], dict[str, Any]]
    show: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Process:
    """What a fresh process took, from its start to its end."""

    wall_s: float
    cpu_s: float
    rss_mib: float
    output: str


def fresh(arguments: Sequence[str], home: Path, threads: int) -> Process:
    """Run Python in a process of its own and measure all of it.

    Raises:
        RuntimeError: it failed; with what it said last.
    """
    variables = {
        **os.environ, "DEEPKITS_HOME": str(home), "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=variables, stdout=said, stderr=said
        )
        # wait4 alone tells of this child and no other.
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with {process.returncode}:\n{output[-3000:]}"
        )
    return Process(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output)


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest of some rounds."""
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def last_json(output: str) -> dict[str, Any]:
    """The last line that a process said, as JSON."""
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def write_part(name: str, found: Mapping[str, Any], study: Study, path: Path = RESULTS) -> None:
    """Put an item's result beside those of the others; each says when and where it was taken."""
    whole = json.loads(path.read_text()) if path.exists() else {}
    machine = {k: v for k, v in environment().items() if k not in ("command", "packages")}
    whole[name] = {
        "quick": study.quick,
        "machine": machine,
        "versions": _versions(),
        "threads": study.threads,
        "rounds": study.rounds,
        "load_average": round(os.getloadavg()[0], 2),
        **found,
    }
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(whole, indent=1) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """For people."""
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    Console(width=120).print(table)
