import asyncio
import json
import socket

import numpy as np
import onnx
import pytest
from onnx import helper

from core.serve.app import build_app
from core.serve.config import ModelFile, ServeConfig
from core.serve.errors import DeadlineExceeded, NotReady, Overloaded
from core.serve.local_engine import LocalEngine
from core.serve.metrics import Metrics
from tests.core.serve.small_engine import SmallEngine, app_of, ask, get, post, request, running

INFER = "/v2/models/double/infer"
X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}


def test_infer_answers_in_json_with_the_newest_version():
    reply = post(app_of(), INFER, {"id": "7", "inputs": [X]})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {
        "model_name": "double",
        "model_version": "2",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [3.0, 6.0, 9.0]}],
    }


def test_infer_takes_a_version_in_the_path():
    reply = post(app_of(), "/v2/models/double/versions/1/infer", {"inputs": [X]})
    assert reply.json["model_version"] == "1"
    assert reply.json["outputs"][0]["data"] == [2.0, 4.0, 6.0]


def test_infer_takes_and_gives_bytes():
    head = {
        "inputs": [{**X, "parameters": {"binary_data_size": 12}}],
        "parameters": {"binary_data_output": True},
    }
    del head["inputs"][0]["data"]
    head = json.dumps(head).encode()
    body = head + np.array([1, 2, 3], np.float32).tobytes()
    headers = {b"inference-header-content-length": b"%d" % len(head)}
    reply = post(app_of(), INFER, body, headers=headers)
    size = int(reply.headers["inference-header-content-length"])
    output = json.loads(reply.body[:size])["outputs"][0]
    assert output["parameters"] == {"binary_data_size": 12}
    assert np.frombuffer(reply.body[size:], np.float32).tolist() == [3, 6, 9]


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        ("double", b"{", 400, "not JSON"),
        ("double", {"inputs": [{**X, "shape": [1, 2]}]}, 400, "'x'"),
        ("double", {"inputs": [X], "outputs": [{"name": "z"}]}, 400, "'z'"),
        ("nothing", {"inputs": [X]}, 404, "'nothing'"),
        ("failed", {"inputs": [X]}, 503, "failed"),
        ("double/versions/9", {"inputs": [X]}, 404, "'double'"),
    ],
)
def test_infer_tells_what_is_wrong(model, body, status, words):
    reply = post(app_of(), f"/v2/models/{model}/infer", body)
    assert reply.status == status
    assert words in reply.json["error"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Overloaded("full", 2.2), 429, "3"),
        (NotReady("starting"), 503, "1"),
        (DeadlineExceeded("late"), 504, None),
    ],
)
def test_a_refusal_says_when_to_come_back(error, status, retry):
    reply = post(app_of(SmallEngine(error=error)), INFER, {"inputs": [X]})
    assert (reply.status, reply.headers.get("retry-after")) == (status, retry)
    assert reply.json == {"error": str(error)}


def test_an_error_inside_stays_inside(caplog):
    reply = post(app_of(), "/v2/models/broken/infer", {"inputs": [X]})
    assert reply.status == 500
    assert "secret" not in reply.body.decode()
    assert "secret" in caplog.text


def test_the_smaller_of_all_timeouts_counts():
    engine = SmallEngine()
    body = {"inputs": [X], "parameters": {"timeout": 2_000_000, "priority": 3}}
    for headers in ({}, {b"x-request-timeout-ms": b"500"}, {b"x-request-timeout-ms": b"9000"}):
        post(
            app_of(engine, ServeConfig(timeout_s=1.0, access_log=False)),
            INFER,
            body,
            headers=headers,
        )
    post(app_of(engine), INFER, {"inputs": [X]})
    assert [call.timeout_s for call in engine.calls] == [1.0, 0.5, 1.0, None]
    assert engine.calls[0].priority == 3


@pytest.mark.parametrize("given", [b"0", b"-1", b"soon", b"1e3"])
def test_a_timeout_is_a_whole_number_of_milliseconds(given):
    reply = post(app_of(), INFER, {"inputs": [X]}, headers={b"x-request-timeout-ms": given})
    assert reply.status == 400
    assert "X-Request-Timeout-Ms" in reply.json["error"]


def test_health_follows_the_engine():
    states = {}
    for state in ("starting", "ready", "draining", "stopped"):
        app = app_of(SmallEngine(state=state))
        paths = ("/live", "/startup", "/ready", "/v2/health/live", "/v2/health/ready")
        states[state] = [get(app, path).status for path in paths]
    assert states == {
        "starting": [200, 503, 503, 200, 503],
        "ready": [200, 200, 200, 200, 200],
        "draining": [200, 200, 503, 200, 503],
        "stopped": [200, 200, 503, 200, 503],
    }


def test_a_caller_who_goes_away_frees_the_slot():
    engine = SmallEngine()
    body = json.dumps({"inputs": [X]}).encode()

    async def leave():
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent = []

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v2/models/slow/infer",
            "headers": [(b"host", b"localhost")],
        }
        task = asyncio.create_task(app_of(engine)(scope, receive, send))
        while not engine.calls:
            await asyncio.sleep(0)
        gone.set()
        await asyncio.wait_for(task, 5)
        return sent

    assert asyncio.run(leave()) == []
    assert engine.cancelled.is_set()


def test_a_closed_connection_cancels_on_a_real_server():
    engine = SmallEngine()
    with running(app_of(engine)) as port:
        body = json.dumps({"inputs": [X]}).encode()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = "POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
            while not engine.calls:
                pass
        while not engine.cancelled.is_set():
            pass
        assert request(port, "GET", "/ready").status == 200


def test_an_answer_that_is_there_at_once_costs_no_task():
    async def count():
        app = app_of()
        created = []

        def make(loop, coroutine, **more):
            created.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **more)

        asyncio.get_running_loop().set_task_factory(make)
        await ask(app, "POST", INFER, {"inputs": [X]})
        return len(created)

    assert asyncio.run(count()) == 0


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_the_engine_of_one_machine_answers_each_way(tmp_path, isolation):
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    values = [helper.make_tensor_value_info(name, 1, ["batch", 3]) for name in "xy"]
    graph = helper.make_graph([node], "square", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "square.onnx")
    config = ServeConfig(
        models=[ModelFile("square", tmp_path / "square.onnx")],
        isolation=isolation,
        access_log=False,
        watch_s=0,
    )
    path = "/v2/models/square/infer"

    async def run():
        metrics = Metrics()
        engine = LocalEngine(config, metrics)
        app = build_app(engine, config, metrics)
        early = await ask(app, "POST", path, {"inputs": [X]})
        await engine.start()
        try:
            return [
                early,
                await ask(app, "GET", "/ready"),
                await ask(app, "POST", path, {"inputs": [X]}),
                await ask(app, "POST", "/models/square/predict", {"x": [[1, 2, 3]]}),
                await ask(app, "POST", path, {"inputs": [{**X, "datatype": "FP64"}]}),
                await ask(app, "POST", "/v2/repository/models/square/load"),
                await ask(app, "GET", "/v2/models/square/stats"),
                await ask(app, "GET", "/metrics"),
            ]
        finally:
            await engine.stop(5)

    early, ready, infer, predict, wrong, load, stats, metrics = asyncio.run(run())
    assert [early.status, ready.status] == [503, 200]
    assert int(early.headers["retry-after"]) >= 1
    assert infer.json["outputs"][0]["data"] == [1.0, 4.0, 9.0]
    assert predict.json == {"y": [[1.0, 4.0, 9.0]]}
    assert (wrong.status, "'x'" in wrong.json["error"]) == (400, True)
    assert load.json["state"] == "READY"
    assert stats.json["model_stats"][0]["inference_count"] == 2
    assert 'deepkits_requests_total{model="square",version="1",protocol="predict",code="ok"} 1' in (
        metrics.body.decode()
    )
