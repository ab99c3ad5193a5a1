"""A service under load while models change, workers are killed, come and go: nothing may fail.

`python -m benchmarks.serve.chaos --requests 100000 --events 20`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]
WIDTH, HIDDEN = 8, 16
# Two contents of the file; whose answer it is shows in the answer.
SCALES = {"one": 1.0, "two": -2.0}
NUM_BODIES = 64
# Of float32 sums of so few terms.
TOLERANCE = 1e-5
EVENTS = ("reload", "broken", "kill", "scale", "reload_and_kill")
SETTLE_S = 30.0
NAME = "model"


@dataclass(frozen=True)
class Plan:
    """What is done to the service."""

    requests: int = 4000
    reloads: int = 6  # to another content; every third has a worker killed meanwhile
    broken: int = 2  # to a file that is none; must be rolled back
    kills: int = 5
    scalings: int = 5
    connections: int = 8
    max_workers: int = 3
    seed: int = 0

    def events(self) -> list[str]:
        """All of them, mixed."""
        with_kill = self.reloads // 3
        found = ["reload_and_kill"] * with_kill + ["reload"] * (self.reloads - with_kill)
        found += ["broken"] * self.broken + ["kill"] * (self.kills - with_kill)
        found += ["scale"] * self.scalings
        random.Random(self.seed).shuffle(found)
        return found


@dataclass
class Outcome:
    """What came of it."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)  # what was answered instead, or the error
    wrong: list[str] = field(default_factory=list)
    by_version: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    reload_s: list[float] = field(default_factory=list)
    replace_s: list[float] = field(default_factory=list)  # from a kill to all workers there
    latency_ms: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    exit_code: int | None = None


def build_model(path: Path, scale: float) -> np.ndarray:
    """Write relu(x @ a) @ b as an ONNX file; gives a and b behind each other."""
    generator = np.random.default_rng(0)
    a = generator.standard_normal((WIDTH, HIDDEN)).astype(np.float32)
    b = (scale * generator.standard_normal((HIDDEN, 2))).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chaos",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(a, "a"), numpy_helper.from_array(b, "b")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return np.concatenate([a, b.T])


def expected(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What a model must answer."""
    a, b = weights[:WIDTH], weights[WIDTH:].T
    return np.maximum(x @ a, 0) @ b


class Client:
    """One kept connection; what is not answered with 200 has failed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body.

        Raises:
            OSError: the connection was closed or refused.
        """
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        try:
            head_bytes = await self._reader.readuntil(b"\r\n\r\n")
            lines = head_bytes.decode().lower().split("\r\n")
            size = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
            return int(lines[0].split()[1]), await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, StopIteration) as error:
            self.close()
            raise ConnectionError(f"the answer broke off: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            self._writer.close()
            self._reader = None


class Chaos:
    """One run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.file = folder / f"{NAME}.onnx"
        self.weights = {
            name: build_model(folder / f"{name}.onnx", scale) for name, scale in SCALES.items()
        }
        # Its answers are no numbers.
        build_model(folder / "nan.onnx", float("nan"))
        self.nan = (folder / "nan.onnx").read_bytes()
        self.outcome = Outcome()
        self.contents: dict[str, str] = {}  # version -> content
        self.current = "one"
        self.answers: list[tuple[int, str, list[float]]] = []
        self.seconds: list[float] = []
        self.sent = 0
        self.random = random.Random(plan.seed)
        generator = np.random.default_rng(plan.seed)
        self.inputs = [
            generator.standard_normal((1 + number % 4, WIDTH)).astype(np.float32)
            for number in range(NUM_BODIES)
        ]
        self.bodies = [_body(x) for x in self.inputs]

    async def run(self, port: int, pid: int) -> Outcome:
        """Load from all connections while one event after the other happens."""
        self.port, self.pid = port, pid
        self.control = Client(port)
        self.contents[await self._newest()] = self.current
        start = time.perf_counter()
        is_over = asyncio.Event()
        loads = [asyncio.create_task(self._load(is_over)) for _ in range(self.plan.connections)]
        try:
            events = self.plan.events()
            for number, event in enumerate(events):
                await self._until(
                    lambda n=number: self.sent >= n * self.plan.requests / len(events)
                )
                await getattr(self, f"_{event}")()
                self.outcome.events[event] += 1
            await self._until(lambda: self.sent >= self.plan.requests)
        finally:
            is_over.set()
            await asyncio.gather(*loads)
        self.outcome.seconds = time.perf_counter() - start
        self.control.close()
        self._judge()
        return self.outcome

    async def _load(self, is_over: asyncio.Event) -> None:
        client = Client(self.port)
        while not is_over.is_set():
            number = self.sent = self.sent + 1
            which = number % NUM_BODIES
            start = time.perf_counter()
            try:
                status, body = await client.ask(
                    "POST", f"/v2/models/{NAME}/infer", self.bodies[which]
                )
            except OSError as error:
                self.outcome.failed.append(f"{type(error).__name__}: {error}")
                continue
            self.seconds.append(time.perf_counter() - start)
            if status != 200:
                self.outcome.failed.append(f"{status}: {body[:200].decode(errors='replace')}")
                continue
            answer = json.loads(body)
            self.answers.append((which, answer["model_version"], answer["outputs"][0]["data"]))
        client.close()

    async def _until(self, condition: Any, limit_s: float | None = None) -> None:
        end = time.perf_counter() + (limit_s or 3600)
        while not condition():
            if time.perf_counter() > end:
                raise TimeoutError("the service did not come to rest")
            await asyncio.sleep(0.01)

    # Events

    async def _reload(self) -> None:
        other = "two" if self.current == "one" else "one"
        start = time.perf_counter()
        before = await self._newest()
        self._write((self.folder / f"{other}.onnx").read_bytes())
        if self.random.random() < 0.5:
            status, body = await self.control.ask("POST", f"/v2/repository/models/{NAME}/load")
            assert status == 200, body
        # Else it is found by looking at the file.
        end = time.perf_counter() + SETTLE_S
        while (newest := await self._newest()) == before:
            assert time.perf_counter() < end, "the file was not reloaded"
            await asyncio.sleep(0.02)
        self.outcome.reload_s.append(time.perf_counter() - start)
        self.contents[newest] = self.current = other

    async def _broken(self) -> None:
        before = await self._newest()
        whole = (self.folder / "two.onnx").read_bytes()
        # Something else, half of a model, one that fails its self-test.
        faults = (b"\x00 not a model", whole[: len(whole) // 2], self.nan)
        self._write(faults[self.outcome.events["broken"] % len(faults)])
        status, body = await self.control.ask("POST", f"/v2/repository/models/{NAME}/load")
        assert status == 400, body
        assert await self._newest() == before
        # The watcher sees the content in service again, and has nothing to do.
        self._write((self.folder / f"{self.current}.onnx").read_bytes())

    async def _kill(self) -> None:
        await self._all_there()
        start = time.perf_counter()
        os.kill(self.random.choice(workers_of(self.pid)), signal.SIGKILL)
        await asyncio.sleep(0.3)
        await self._all_there()
        self.outcome.replace_s.append(time.perf_counter() - start)

    async def _scale(self) -> None:
        _, wanted = await self._workers()
        up = wanted <= 2 or (wanted < self.plan.max_workers and self.random.random() < 0.5)
        os.kill(self.pid, signal.SIGTTIN if up else signal.SIGTTOU)
        end = time.perf_counter() + SETTLE_S
        while (await self._workers())[1] == wanted:
            assert time.perf_counter() < end, "the number of workers did not change"
            await asyncio.sleep(0.02)
        await self._all_there()

    async def _reload_and_kill(self) -> None:
        await self._all_there()
        reload = asyncio.create_task(self._reload())
        await asyncio.sleep(0.4 * self.random.random())
        os.kill(self.random.choice(workers_of(self.pid)), signal.SIGKILL)
        await reload
        await asyncio.sleep(0.3)
        await self._all_there()

    def _write(self, content: bytes) -> None:
        part = self.file.with_suffix(".part")
        part.write_bytes(content)
        part.replace(self.file)

    async def _newest(self) -> str:
        _, body = await self.control.ask("POST", "/v2/repository/index", b'{"ready": true}')
        return str(json.loads(body)[-1]["version"])

    async def _workers(self) -> tuple[int, int]:
        """Ready, and wanted."""
        _, body = await self.control.ask("GET", "/metrics")
        values = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if line)
        ready, wanted = values["deepkits_workers"], values["deepkits_workers_wanted"]
        return int(float(ready)), int(float(wanted))

    async def _all_there(self) -> None:
        end = time.perf_counter() + SETTLE_S
        while True:
            ready, wanted = await self._workers()
            if ready == wanted == len(workers_of(self.pid)):
                return
            assert time.perf_counter() < end, f"{ready} workers of {wanted} came"
            await asyncio.sleep(0.02)

    def _judge(self) -> None:
        outcome = self.outcome
        outcome.answered = len(self.answers)
        truths = {
            name: [expected(weights, x) for x in self.inputs]
            for name, weights in self.weights.items()
        }
        for which, version, data in self.answers:
            outcome.by_version[version] += 1
            content = self.contents.get(version)
            if content is None:
                outcome.wrong.append(f"version {version} was never newest")
                continue
            truth = truths[content][which]
            if not np.allclose(np.array(data).reshape(truth.shape), truth, atol=TOLERANCE):
                outcome.wrong.append(f"input {which} has not the answer of version {version}")
        for share in (50, 99, 99.9, 100):
            outcome.latency_ms[f"p{share:g}"] = 1e3 * float(np.percentile(self.seconds, share))


def _body(x: np.ndarray) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def workers_of(pid: int) -> list[int]:
    """Worker processes of a service, dead ones that were not reaped yet left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_bytes()
            except (OSError, ValueError):
                continue  # it ended meanwhile
            if int(parent) == pid and state != "Z" and b"core.schedule.worker" in command:
                found.append(int(entry.name))
    return found


@contextmanager
def service(file: Path, plan: Plan) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service of one file in workers, and its port."""
    command = [sys.executable, "-P", "-m", "core.serve", f"{NAME}={file}", "--port=0"]
    command += ["--isolation=process", "--min-workers=2", f"--max-workers={plan.max_workers}"]
    command += ["--watch-s=0.2", "--no-access-log"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " ready on " not in line:
                log.seek(0)
                raise RuntimeError(f"the service did not start: {line}{log.read()}")
            yield process, int(line.split(" ready on http://127.0.0.1:")[1].split()[0])
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()


def run_chaos(plan: Plan) -> Outcome:
    """Start a service, do everything of a plan to it, end it."""
    with tempfile.TemporaryDirectory() as name:
        chaos = Chaos(plan, Path(name))
        chaos.file.write_bytes((chaos.folder / "one.onnx").read_bytes())
        with service(chaos.file, plan) as (process, port):
            outcome = asyncio.run(chaos.run(port, process.pid))
        outcome.exit_code = process.returncode
        return outcome


def main() -> None:
    """Run in full and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=20, help="reloads, kills, scale changes each")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    number = flags.events
    plan = Plan(flags.requests, number, max(1, number // 5), number, number, seed=flags.seed)
    outcome = run_chaos(plan)
    told = vars(outcome) | {"failed": Counter(outcome.failed), "wrong": Counter(outcome.wrong)}
    print(json.dumps(told, indent=2, default=str))
    raise SystemExit(1 if outcome.failed or outcome.wrong else 0)


if __name__ == "__main__":
    main()
