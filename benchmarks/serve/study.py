"""What all items share: where they keep models, what they say while they run, where results go."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.serve.load import CLIENT_CORE, Plan, run_load
from benchmarks.serve.peers.session import open_session
from benchmarks.serve.process import SERVER_CORES, Running
from benchmarks.serve.servers import SERVERS, Server, ask_once
from core.train.run import environment, write_atomic

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "serve.json"
MODELS = ROOT / "build" / "serve"
PACKAGES = (
    "deepkits", "fastapi", "httptools", "litserve", "numpy", "onnxruntime", "orjson", "ray",
    "starlette", "uvicorn", "uvloop",
)  # fmt: skip
NUM_SAMPLES = 64


@dataclass
class Study:
    """One item of the benchmark while it runs."""

    quick: bool = False  # to see that it works; its numbers mean nothing
    only: tuple[str, ...] = ()  # servers; empty: all of the item
    rounds: int = 0  # how often each is measured; 0: as the item has it

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def servers(self, names: Sequence[str]) -> list[Server]:
        """Those of an item that were asked for."""
        return [SERVERS[name] for name in names if not self.only or name in self.only]


@dataclass(frozen=True)
class Subject:
    """A model with inputs, and what its session makes of the first one."""

    path: Path
    given: str
    wanted: str
    samples: np.ndarray  # (n, 1, ...) float32
    expected: np.ndarray  # of samples[0]
    # JSON rounds to seven or more digits, a batched product sums in another order.
    tolerance: float = 1e-5

    def requests(self, server: Server) -> list[bytes]:
        """Whole HTTP requests, one a sample."""
        return [server.wire.request(self.given, rows) for rows in self.samples]

    @contextmanager
    def served(
        self, server: Server, *arguments: str, cores: Sequence[int] = SERVER_CORES
    ) -> Iterator[Running]:
        """Started, and its answer compared with the session's."""
        with server.started(self.path, *arguments, cores=cores) as found:
            answer = ask_once(server, found.port, self.given, self.wanted, self.samples[0])
            if not np.allclose(answer, self.expected, rtol=1e-4, atol=self.tolerance):
                raise RuntimeError(
                    f"{server.name} answered {answer}, the session itself {self.expected}"
                )
            yield found


def subject(path: Path, number: int = NUM_SAMPLES) -> Subject:
    """Samples for a model of one input, from a normal distribution."""
    session = open_session(str(path))
    (given,), (wanted, *_) = session.get_inputs(), session.get_outputs()
    shape = (number, 1, *given.shape[1:])
    samples = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    expected = session.run([wanted.name], {given.name: samples[0]})[0]
    return Subject(path, given.name, wanted.name, samples, expected)


def load(server: Running, requests: Sequence[bytes], **settings: Any) -> dict[str, Any]:
    """A run of the generator against a server."""
    return run_load(Plan(server.port, requests, **settings))


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, least and greatest of some rounds."""
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def versions() -> dict[str, str]:
    """Of the packages that take part."""
    return {name: metadata.version(name) for name in PACKAGES}


def write_part(name: str, found: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Put an item's result beside those of the others; each says when and where it was taken."""
    whole = json.loads(path.read_text()) if path.exists() else {}
    machine = {k: v for k, v in environment().items() if k not in ("command", "packages")}
    whole[name] = {
        "machine": machine,
        "versions": versions(),
        "load_average": round(os.getloadavg()[0], 2),
        "pinning": f"server on core {SERVER_CORES[0]}, client on core {CLIENT_CORE}",
        **found,
    }
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(whole, indent=1) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """For people."""
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    Console(width=120).print(table)


@dataclass(frozen=True)
class Item:
    """One question of the benchmark."""

    seconds: Callable[[Study], float]  # about how long it takes
    run: Callable[[Study], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]


NAMES = (
    "latency", "throughput", "resnet", "chaos", "overload", "startup", "memory", "scaling",
)  # fmt: skip


def item(name: str) -> Item:
    """Its module holds it as `ITEM`."""
    return importlib.import_module(f"benchmarks.serve.items.{name}").ITEM
