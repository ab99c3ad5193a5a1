"""An engine of plain functions behind the real application, and two ways to ask it."""

import asyncio
import contextlib
import http.client
import json
import threading
from dataclasses import dataclass, field

import numpy as np
import uvicorn

from core.serve.app import build_app
from core.serve.config import ServeConfig
from core.serve.engine import Answer, Served
from core.serve.errors import BadRequest, NotFound, NotReady
from core.serve.metrics import Metrics
from edge.manifest import Tensor
from edge.pipeline import check_inputs

ALL_TYPES = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64".split()


def served(name, inputs, outputs, version="1", **more):
    more = {"platform": "onnx-onnxruntime", "max_batch": 8, "state": "ready", **more}
    return Served(name=name, version=version, inputs=inputs, outputs=outputs, **more)


X = (Tensor("x", "float32", ("batch", 3)),)
Y = (Tensor("y", "float32", ("batch", 3)),)
# Every type there is, given back as it came.
ECHO = tuple(Tensor(f"in_{dtype}", dtype, (2,)) for dtype in ALL_TYPES)
ECHOED = tuple(Tensor(f"out_{dtype}", dtype, (2,)) for dtype in ALL_TYPES)


@dataclass
class SmallEngine:
    state: str = "ready"
    models: list = field(
        default_factory=lambda: [
            served("double", X, Y, "1", description="Doubles <numbers>"),
            served("double", X, Y, "2", description="Triples <numbers>"),
            served("echo", ECHO, ECHOED),
            served("slow", X, Y),
            served("broken", X, Y),
            served("failed", X, Y, state="failed", reason="no such file"),
        ]
    )
    calls: list = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    reloaded: list = field(default_factory=list)
    functions: dict = field(default_factory=dict)  # name -> what it computes of its inputs

    def catalogue(self):
        return self.models

    def find(self, name, version=""):
        found = [
            each for each in self.models if each.name == name and version in ("", each.version)
        ]
        if not found:
            raise NotFound(f"model {name!r} is not one of double, echo")
        if found[-1].state != "ready":
            raise NotReady(f"model {name!r} is {found[-1].state}")
        return found[-1]

    async def infer(self, call):
        self.calls.append(call)
        model = self.find(call.model, call.version)
        if self.error:
            raise self.error
        if model.name == "slow":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if model.name == "broken":
            raise RuntimeError("the secret reason")
        try:
            check_inputs(call.inputs, model.inputs)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if model.name in self.functions:
            outputs = self.functions[model.name](call.inputs)
        elif model.name == "echo":
            outputs = {f"out{name[2:]}": array for name, array in call.inputs.items()}
        else:
            outputs = {"y": call.inputs["x"] * np.float32(int(model.version) + 1)}
        return Answer(outputs, model.name, model.version, 0.001, 0.002)

    async def reload(self, name):
        self.reloaded.append(name)
        return self.find(name)


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def app_of(engine=None, config=None, **more):
    config = config or ServeConfig(access_log=False)
    return build_app(engine or SmallEngine(), config, Metrics(), **more)


async def ask(app, method, path, body=b"", headers=(), pieces=None):
    """One request straight into the application, as a server would pass it on."""
    sent = {b"host": b"localhost:8080", **dict(headers)}
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    messages = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces or []
    ]
    messages.append({"type": "http.request", "body": body, "more_body": False})
    replies = []

    async def receive():
        if messages:
            return messages.pop(0)
        return await asyncio.Event().wait()

    async def send(message):
        replies.append(message)

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": list(sent.items()),
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    start, *rest = replies
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], found, b"".join(message["body"] for message in rest))


def get(app, path, **more):
    return asyncio.run(ask(app, "GET", path, **more))


def post(app, path, body=b"", **more):
    return asyncio.run(ask(app, "POST", path, body, **more))


@contextlib.contextmanager
def running(app, **settings):
    """The application behind a real server on a free port; gives the port."""
    settings = {"lifespan": "off", "log_level": "warning", "http": "httptools", **settings}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def request(port, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, response.read())
    finally:
        connection.close()
