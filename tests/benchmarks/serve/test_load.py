"""The load generator tells the truth of servers whose behaviour is known."""

import asyncio
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks.serve.items.memory import slope_bytes
from benchmarks.serve.load import Plan, http_request, run_load
from benchmarks.serve.search import Probes, holds

REQUEST = http_request("/", b"{}")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def serving(answer):
    """A server that asks `answer(number)` for the bytes to send; None closes the connection."""
    ready, over = threading.Event(), threading.Event()
    found = {}

    async def handle(reader, writer):
        try:
            while await reader.readuntil(b"{}"):
                found["number"] += 1
                content = await answer(found["number"])
                if content is None:
                    break
                writer.write(content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has all it wanted
        writer.close()

    async def run():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        found["port"], found["number"] = server.sockets[0].getsockname()[1], 0
        ready.set()
        await asyncio.to_thread(over.wait)
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait()
    try:
        yield found["port"]
    finally:
        over.set()
        thread.join()


def run(answer, **settings):
    with serving(answer) as port:
        return run_load(Plan(port, [REQUEST], warmup_s=0, timeout_s=5, **settings))


def test_a_pause_of_the_server_is_the_latency_of_all_that_were_due_in_it():
    # One connection: a client that waits for its answer before it sends would see one slow request.
    async def answer(number):
        if number == 20:
            await asyncio.sleep(0.5)
        return OK

    found = run(answer, rate=100, seconds=1, connections=1)
    assert found["ok"] == found["requests"] == 100
    # 50 requests were due meanwhile, later and later ones wait less.
    assert found["latency_ms"]["p90"] > 300
    assert found["client"]["waited_for_a_connection"] >= 40


def test_answers_are_counted_by_status():
    async def answer(number):
        return BUSY if number % 4 == 0 else OK

    found = run(answer, rate=200, seconds=0.5)
    assert found["status"] == {"200": 75, "429": 25}
    assert found["ok"] == 75


def test_a_closed_connection_is_a_failure_and_opened_again():
    async def answer(number):
        return None if number == 3 else OK

    found = run(answer, rate=50, seconds=0.5, connections=1)
    assert found["status"] == {"connection closed": 1, "200": 24}
    assert found["client"]["reopened"] == 1


def test_a_closed_loop_has_as_many_requests_as_connections():
    most = [0, 0]

    async def answer(_):
        most[0] += 1
        most[1] = max(most)
        await asyncio.sleep(0.02)
        most[0] -= 1
        return OK

    found = run(answer, rate=0, seconds=0.5, connections=3)
    assert most[1] == 3
    assert found["loop"] == "closed"
    assert found["ok"] == found["requests"] > 3


def probe(limit):
    """A server that holds 5 ms up to a rate."""

    def run(rate):
        late = rate > limit
        return {
            "rate": rate, "requests": 10, "ok": 10, "ok_per_s": rate,
            "windows": [{"p99": 50.0 if late else 1.0}] * 3, "latency_ms": {"p50": 1.0},
        }  # fmt: skip

    return run


def test_the_search_comes_near_the_highest_rate_that_holds():
    assert Probes(probe(700)).search(1000, 5.0, 6) == pytest.approx(700, rel=0.05)
    assert Probes(probe(0)).search(1000, 5.0, 3) == 0


def test_a_rate_does_not_hold_where_an_answer_is_missing():
    assert holds(probe(700)(600), 5.0)
    assert not holds({**probe(700)(600), "ok": 9}, 5.0)
    assert not holds({**probe(700)(600), "ok_per_s": 500}, 5.0)
    assert not holds({**probe(700)(600), "windows": [{"p99": 1.0}, {}, {"p99": 1.0}]}, 5.0)


def test_a_slope_is_told_with_an_interval_that_holds_it():
    at = np.arange(1000.0) * 1000
    noise = np.random.default_rng(0).normal(0, 0.05, 1000)
    flat = slope_bytes(at, 80 + noise)
    assert flat["low"] < 0 < flat["high"]
    growing = slope_bytes(at, 80 + at * 3 / 2**20 + noise)
    assert 0 < growing["low"] < 3 < growing["high"]
