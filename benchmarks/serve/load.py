"""A load generator: requests leave when they are due, whether the server keeps up or not.

`python -m benchmarks.serve.load` reads a plan as JSON from stdin and prints what it saw as JSON;
`run_load` does so in a process of its own, pinned to its own core. Latency counts from the time at
which a request was due, not from when it was sent: what waits for a connection, or for a slow
client, is late all the same. How late the client itself was is part of the result, so that a number
that says more about the client than about the server can be told.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import uvloop

from benchmarks.serve.summary import CLOSED, NEVER_SENT, TIMEOUT, Record, Run, summarise
from benchmarks.serve.timer import Timer

CLIENT_CORE = 1
TICK_S = 0.05


@dataclass
class Plan:
    """What to send, where, and how often."""

    port: int
    requests: Sequence[bytes]  # whole HTTP requests, sent in turn
    rate: float = 0.0  # per second; 0: closed loop, each connection sends when it has its answer
    seconds: float = 10.0  # measured
    warmup_s: float = 1.0  # the same load before, not counted
    connections: int = 64  # at most; a closed loop holds so many
    arrivals: str = "constant"  # or poisson
    timeout_s: float = 10.0
    slo_ms: float = 10.0  # answers of status 200 within it are the goodput
    core: int = CLIENT_CORE
    timeline: bool = False  # give answers per second too
    host: str = "127.0.0.1"
    seed: int = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.at = -1  # which request is on its way; -1: none
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.parser = httptools.HttpResponseParser(self)
        self.feed = self.parser.feed_data

    def data_received(self, data: bytes) -> None:
        self.feed(data)

    def on_message_complete(self) -> None:
        at, self.at = self.at, -1
        self.client.answered(at, self.parser.get_status_code())
        if not self.parser.should_keep_alive():
            self.transport.abort()
        else:
            self.client.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        at, self.at = self.at, -1
        self.client.lost(self, at)


class Client:
    """Sends by the plan and writes down what happens."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.record = Record()
        self.idle: list[Connection] = []
        self.all: set[Connection] = set()
        self.waiting: deque[int] = deque()
        self.opening = 0
        self.num_reopened = 0
        self.num_waited = 0
        self.num_open = 0  # requests without an answer yet
        self.over = False
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()

    # Connections

    async def open(self) -> None:
        self.opening += 1
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self), self.plan.host, self.plan.port
            )
        except OSError:
            # The server does not listen at this moment; not at once again.
            await asyncio.sleep(0.01)
            if not self.over:
                self.reopen()
            return
        finally:
            self.opening -= 1
        self.all.add(connection)
        self.free(connection)

    def reopen(self) -> None:
        self.num_reopened += 1
        task = self.loop.create_task(self.open())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def free(self, connection: Connection) -> None:
        if self.waiting:
            self.send(connection, self.waiting.popleft())
        elif self.plan.rate or self.over:
            self.idle.append(connection)
        else:
            self.record_due(time.perf_counter())
            self.send(connection, len(self.record.due) - 1)

    def lost(self, connection: Connection, at: int) -> None:
        self.all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if at >= 0 and self.record.status[at] == 0:
            self.answered(at, CLOSED)
        if not self.over:
            self.reopen()

    # Requests

    def record_due(self, due: float) -> None:
        self.record.due.append(due)
        self.record.sent.append(0.0)
        self.record.answered.append(0.0)
        self.record.status.append(0)
        self.num_open += 1

    def send(self, connection: Connection, at: int) -> None:
        connection.at = at
        self.record.sent[at] = time.perf_counter()
        requests = self.plan.requests
        connection.transport.write(requests[at % len(requests)])

    def submit(self, due: float) -> None:
        self.record_due(due)
        at = len(self.record.due) - 1
        if self.idle:
            self.send(self.idle.pop(), at)
        else:
            self.num_waited += 1
            self.waiting.append(at)

    def answered(self, at: int, status: int) -> None:
        if at >= 0 and self.record.status[at] == 0:
            self.record.answered[at] = time.perf_counter()
            self.record.status[at] = status
            self.num_open -= 1

    def give_up(self) -> None:
        """End what takes longer than the timeout; connections of such requests are of no use."""
        oldest = time.perf_counter() - self.plan.timeout_s
        while self.waiting and self.record.due[self.waiting[0]] < oldest:
            self.answered(self.waiting.popleft(), NEVER_SENT)
        for connection in list(self.all):
            if connection.at >= 0 and self.record.due[connection.at] < oldest:
                self.answered(connection.at, TIMEOUT)
                connection.transport.abort()


async def _send_on_time(client: Client, dues: np.ndarray) -> list[float]:
    """Submit each request when it is due; gives how late each was submitted."""
    timer, loop, done = Timer(), client.loop, asyncio.Event()
    pending, late = dues.tolist()[::-1], []
    timer.set(pending[-1])

    def wake() -> None:
        os.read(timer.fd, 8)
        now = time.perf_counter()
        while pending and pending[-1] <= now:
            due = pending.pop()
            late.append(now - due)
            client.submit(due)
        if pending:
            timer.set(pending[-1])
        else:
            done.set()

    loop.add_reader(timer.fd, wake)
    try:
        await done.wait()
    finally:
        loop.remove_reader(timer.fd)
        timer.close()
    return late


def arrival_times(plan: Plan, start: float) -> np.ndarray:
    """When each request is due, those of the warm-up included."""
    seconds = plan.warmup_s + plan.seconds
    number = max(1, round(plan.rate * seconds))
    if plan.arrivals == "constant":
        return start + np.arange(number) / plan.rate
    gaps = np.random.default_rng(plan.seed).exponential(1 / plan.rate, number)
    return start + np.cumsum(gaps)


async def _run(plan: Plan) -> dict[str, Any]:
    client = Client(plan)
    late: list[float] = []
    ticking = asyncio.create_task(_tick(client))
    if not plan.rate:
        start = time.perf_counter()
    await asyncio.wait_for(
        asyncio.gather(*(client.open() for _ in range(plan.connections))), plan.timeout_s
    )
    cpu = time.process_time()
    if plan.rate:
        start = time.perf_counter() + 0.01
        late = await _send_on_time(client, arrival_times(plan, start))
    else:
        await asyncio.sleep(plan.warmup_s + plan.seconds)
    client.over = True
    cpu = (time.process_time() - cpu) / (time.perf_counter() - start)
    ends = time.perf_counter() + plan.timeout_s
    while client.num_open and time.perf_counter() < ends:
        await asyncio.sleep(0.01)
    client.give_up()
    ticking.cancel()
    for connection in list(client.all):
        connection.transport.abort()
    seen = Run(
        record=client.record,
        start=start + plan.warmup_s,
        late=late,
        cpu_share=cpu,
        num_waited=client.num_waited,
        num_reopened=client.num_reopened,
    )
    return {**describe(plan), **summarise(seen, plan.seconds, plan.slo_ms, plan.timeline)}


def describe(plan: Plan) -> dict[str, Any]:
    """What was asked for."""
    return {
        "loop": "open" if plan.rate else "closed",
        "rate": plan.rate or None,
        "arrivals": plan.arrivals if plan.rate else None,
        "connections": plan.connections,
    }


async def _tick(client: Client) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        client.give_up()


def http_request(
    path: str,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A POST request as it goes over the wire."""
    lines = {
        "Host": "127.0.0.1",
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def run_load(plan: Plan) -> dict[str, Any]:
    """The plan in a process of its own, on its own core.

    Raises:
        RuntimeError: the client failed; its own words follow.
    """
    text = {**asdict(plan), "requests": [base64.b64encode(r).decode() for r in plan.requests]}
    limit_s = plan.warmup_s + plan.seconds + 2 * plan.timeout_s + 30
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.serve.load"],
        input=json.dumps(text),
        capture_output=True,
        text=True,
        timeout=limit_s,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    if child.returncode != 0:
        raise RuntimeError(f"the load generator ended with {child.returncode}: {child.stderr}")
    return json.loads(child.stdout)


def main() -> None:
    """Read a plan, run it, print the result."""
    text = json.load(sys.stdin)
    text["requests"] = [base64.b64decode(request) for request in text["requests"]]
    plan = Plan(**text)
    os.sched_setaffinity(0, {plan.core})
    # The client's own pauses are not the server's.
    gc.freeze()
    gc.disable()
    json.dump(uvloop.run(_run(plan)), sys.stdout)


if __name__ == "__main__":
    main()
