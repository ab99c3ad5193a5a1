"""Every server that is measured: its command, how it is asked, and with which settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.serve.load import http_request
from benchmarks.serve.process import SERVER_CORES, Running, ask, free_port, running

PEERS = "benchmarks.serve.peers"
OIP, TYPED = "/v2/models/model/infer", "/models/model/predict"


@dataclass(frozen=True)
class Wire:
    """How arrays go to a server and come back."""

    path: str
    body: Callable[[str, np.ndarray], tuple[bytes, dict[str, str]]]  # input, rows -> body, headers
    read: Callable[[str, bytes], np.ndarray]  # output, body -> rows

    def request(self, name: str, rows: np.ndarray) -> bytes:
        """A whole HTTP request."""
        body, headers = self.body(name, rows)
        return http_request(self.path, body, headers=headers)


def _rows_body(name: str, rows: np.ndarray) -> tuple[bytes, dict[str, str]]:
    return json.dumps({name: _short(rows)}).encode(), {"Content-Type": "application/json"}


def _rows_read(name: str, body: bytes) -> np.ndarray:
    return np.array(json.loads(body)[name], np.float32)


def _short(rows: np.ndarray) -> list[object]:
    """Numbers as people send them: float32 in the fewest digits, not the 17 of its double."""
    return [float(str(value)) for value in rows] if rows.ndim == 1 else [_short(r) for r in rows]


def _bytes_body(_: str, rows: np.ndarray) -> tuple[bytes, dict[str, str]]:
    return rows.tobytes(), {"Content-Type": "application/octet-stream"}


def _bytes_read(_: str, body: bytes) -> np.ndarray:
    return np.frombuffer(body, np.float32)[None]


def _oip_body(name: str, rows: np.ndarray) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": name, "shape": rows.shape, "datatype": "FP32", "data": _short(rows.ravel())}
    return json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"}


def _oip_read(name: str, body: bytes) -> np.ndarray:
    (found,) = (o for o in json.loads(body)["outputs"] if o["name"] == name)
    return np.array(found["data"], np.float32).reshape(found["shape"])


HEADER_LENGTH = "Inference-Header-Content-Length"


def _binary_body(name: str, rows: np.ndarray) -> tuple[bytes, dict[str, str]]:
    tensor = {
        "name": name,
        "shape": rows.shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": rows.nbytes},
    }
    head = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(head, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return text + rows.tobytes(), headers


def _binary_read(name: str, body: bytes) -> np.ndarray:
    """One output: its bytes are the end of the body, behind the JSON."""
    head, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    (found,) = (o for o in head["outputs"] if o["name"] == name)
    size = found["parameters"]["binary_data_size"]
    assert end + size == len(body), "the answer has more than one output"
    return np.frombuffer(body[end:], np.float32).reshape(found["shape"])


ROWS = Wire("/predict", _rows_body, _rows_read)


@dataclass(frozen=True)
class Server:
    """One way to serve a model."""

    name: str
    settings: str  # in words, for the reader of a result
    command: tuple[str, ...]  # {model} and {port} are filled in
    wire: Wire
    ready: str = "/health"
    environment: Mapping[str, str] = field(default_factory=dict)
    limit_s: float = 60.0  # to be ready

    @contextmanager
    def started(
        self, model: Path, *arguments: str, cores: Sequence[int] = SERVER_CORES
    ) -> Iterator[Running]:
        """Serve a model on the server's cores; further arguments go to the command."""
        port = free_port()
        values = {"model": str(model), "port": str(port)}
        command = [sys.executable, *(part.format(**values) for part in self.command), *arguments]
        with running(
            command,
            port=port,
            ready=self.ready,
            environment=self.environment,
            cores=cores,
            limit_s=self.limit_s,
        ) as server:
            yield server


def ask_once(server: Server, port: int, given: str, wanted: str, rows: np.ndarray) -> np.ndarray:
    """A server's answer, to be compared: no number of a server whose answer is wrong.

    Raises:
        RuntimeError: the status is not 200.
    """
    body, headers = server.wire.body(given, rows)
    status, answer = ask(port, f"POST {server.wire.path}", body, headers)
    if status != 200:
        raise RuntimeError(f"{server.name} answered {status}: {answer[:500]!r}")
    return server.wire.read(wanted, answer)


def _ray(name: str, words: str, **variables: str) -> Server:
    command = ("-m", f"{PEERS}.ray_app", "{model}", "{port}")
    words += "; one replica, 256 ongoing requests, no dashboard, no report of use"
    return Server(name, words, command, ROWS, environment=variables, limit_s=180)


def _deepkits(form: str, words: str, wire: Wire, log: str = "--no-access-log") -> Server:
    command = ("-m", "core.serve", "model={model}", "--port", "{port}", log)
    return Server(f"deepkits_{form}", f"as it comes: {words}", command, wire, ready="/ready")


def _litserve(form: str, words: str) -> Server:
    command = ("-m", f"{PEERS}.litserve_app", "{model}", "{port}", form)
    return Server(f"litserve_{form}", words, command, ROWS)


SERVERS = {
    server.name: server
    for server in (
        Server(
            "raw_asgi",
            "uvicorn, uvloop, httptools; an ASGI function calls the session; orjson",
            ("-m", f"{PEERS}.raw_asgi", "{model}", "{port}"),
            Wire("/json", _rows_body, _rows_read),
        ),
        Server(
            "raw_asgi_binary",
            "the same; the body is the array's bytes",
            ("-m", f"{PEERS}.raw_asgi", "{model}", "{port}"),
            Wire("/binary", _bytes_body, _bytes_read),
        ),
        Server(
            "fastapi",
            "pydantic lists and a plain function, as users write it; uvloop, httptools",
            ("-m", f"{PEERS}.fastapi_app", "{model}", "{port}", "plain"),
            ROWS,
        ),
        Server(
            "fastapi_tuned",
            "computes in the event loop, orjson, no validation; uvloop, httptools",
            ("-m", f"{PEERS}.fastapi_app", "{model}", "{port}", "tuned"),
            ROWS,
        ),
        _litserve("default", "one worker, one API server"),
        _litserve("fast", "fast_queue=True, one worker, one API server"),
        _litserve("batching", "fast_queue=True, max_batch_size=32, batch_timeout=1 ms"),
        _ray("ray_serve", "default proxy, computes in the event loop, orjson"),
        _ray(
            "ray_serve_haproxy",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED=1 and RAY_SERVE_ENABLE_HA_PROXY=1 (its guide to high "
            "throughput), HAProxy with one thread",
            RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
            RAY_SERVE_ENABLE_HA_PROXY="1",
            RAY_SERVE_HAPROXY_NBTHREAD="1",
        ),
        _deepkits("oip", "Open Inference Protocol, JSON", Wire(OIP, _oip_body, _oip_read)),
        _deepkits("json", "the model's typed endpoint", Wire(TYPED, _rows_body, _rows_read)),
        _deepkits(
            "binary",
            "Open Inference Protocol, binary extension",
            Wire(OIP, _binary_body, _binary_read),
        ),
        _deepkits(
            "logged",
            "Open Inference Protocol, JSON, with its access log on",
            Wire(OIP, _oip_body, _oip_read),
            "--access-log",
        ),
    )
}
