import json
import socket

import pytest

from core.serve import oip
from core.serve.config import ServeConfig
from core.serve.connection import server_settings
from tests.core.serve.small_engine import SmallEngine, app_of, running

X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
BODY = json.dumps({"inputs": [X]}).encode()
INFER = "/v2/models/double/infer"


class InstantEngine(SmallEngine):
    """Answers at once what does not name a slow model."""

    def infer_now(self, call):
        if call.model == "slow" or self.is_busy:
            return None
        coroutine = self.infer(call)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("it waits")

    is_busy = False


@pytest.fixture
def engine():
    return InstantEngine()


@pytest.fixture
def app(engine):
    return app_of(engine)


@pytest.fixture
def port(app):
    with running(app, **server_settings()) as port:
        yield port


def post(path=INFER, body=BODY, version="1.1", **headers):
    lines = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/{version}\r\n{text}\r\n".encode() + body


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_answer(sock, seen=b""):
    """Status, JSON, and what came behind it."""
    while b"\r\n\r\n" not in seen:
        piece = sock.recv(65536)
        assert piece, "closed"
        seen += piece
    head, _, rest = seen.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(rest) < size:
        rest += sock.recv(65536)
    return int(head.split()[1]), json.loads(rest[:size]), rest[size:]


def counted(app):
    """Successful requests in the statistics of all models."""
    told = app._recorder.statistics.tell(app._engine.catalogue())["model_stats"]
    return sum(each["inference_stats"]["success"]["count"] for each in told)


def test_a_whole_request_is_answered_without_a_task(port, app, monkeypatch):
    async def never(*_):
        raise AssertionError("it took the usual way")

    monkeypatch.setattr(app, "_compute", never)
    with connect(port) as sock:
        for _ in range(3):
            sock.sendall(post())
            status, answer, rest = read_answer(sock)
            assert (status, rest) == (200, b"")
            assert answer["outputs"][0]["data"] == [3.0, 6.0, 9.0]


@pytest.mark.parametrize("is_busy", [False, True])
def test_both_ways_answer_alike(port, engine, app, is_busy):
    engine.is_busy = is_busy
    with connect(port) as sock:
        sock.sendall(post())
        assert read_answer(sock)[:2] == (
            200,
            {
                "model_name": "double",
                "model_version": "2",
                "outputs": [
                    {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [3.0, 6.0, 9.0]}
                ],
            },
        )
        sock.sendall(post("/models/double/predict", b'{"x": [[1, 2, 3]]}'))
        assert read_answer(sock)[:2] == (200, {"y": [[3.0, 6.0, 9.0]]})
        sock.sendall(post("/models/double/predict", b'{"z": [[1, 2, 3]]}'))
        status, answer, _ = read_answer(sock)
        assert status == 400
        assert "'x'" in answer["error"] or "'z'" in answer["error"]
        sock.sendall(post("/models/broken/predict", b'{"x": [[1, 2, 3]]}'))
        assert read_answer(sock)[:2] == (500, {"error": "the service failed; its log says why"})
    assert counted(app) == 2


@pytest.mark.parametrize("is_busy", [False, True])
def test_each_request_counts_once_against_the_rate(engine, is_busy):
    engine.is_busy = is_busy
    config = ServeConfig(rate_limit=2, access_log=False)
    with running(app_of(engine, config), **server_settings()) as port, connect(port) as sock:
        statuses = []
        for _ in range(3):
            sock.sendall(post())
            statuses.append(read_answer(sock)[0])
    assert statuses == [200, 200, 429]


def test_what_has_to_wait_is_not_decoded_twice(port, engine, monkeypatch):
    engine.is_busy, seen, decode = True, [], oip.decode
    monkeypatch.setattr(oip, "decode", lambda *given: seen.append(1) or decode(*given))
    with connect(port) as sock:
        sock.sendall(post())
        assert read_answer(sock)[0] == 200
    assert len(seen) == len(engine.calls) == 1


def test_requests_behind_each_other_are_answered_in_turn(port, engine):
    path = "/models/double/predict"
    bodies = [json.dumps({"x": [[number, 0, 0]]}).encode() for number in range(5)]
    with connect(port) as sock:
        for is_busy in (False, True):
            engine.is_busy = is_busy
            sock.sendall(b"".join(post(path, body) for body in bodies))
            found, rest = [], b""
            for _ in bodies:
                _, answer, rest = read_answer(sock, rest)
                found.append(answer["y"][0][0])
            assert found == [0.0, 3.0, 6.0, 9.0, 12.0]


@pytest.mark.parametrize("cut", [20, 100, len(post()) - 1])
def test_a_request_in_pieces_is_answered(port, cut):
    whole = post()
    with connect(port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            sock.sendall(whole[:cut])
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(10)
            sock.sendall(whole[cut:])
            assert read_answer(sock)[0] == 200


def test_chunks_are_joined(port):
    half = len(BODY) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (BODY[:half], BODY[half:]))
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(port) as sock:
        sock.sendall(head.encode() + chunks + b"0\r\n\r\n")
        assert read_answer(sock)[0] == 200


def test_a_query_is_no_part_of_the_path(port):
    with connect(port) as sock:
        sock.sendall(post(f"{INFER}?a=b"))
        assert read_answer(sock)[0] == 200


@pytest.mark.parametrize("asked", [{"Connection": "close"}, {"version": "1.0"}])
def test_a_connection_is_closed_where_that_is_asked_for(port, asked):
    with connect(port) as sock:
        sock.sendall(post(**asked))
        assert read_answer(sock)[0] == 200
        assert sock.recv(1) == b""


def test_a_body_is_asked_for_where_it_waits_for_that(port):
    with connect(port) as sock:
        whole = post(Expect="100-continue")
        sock.sendall(whole[: -len(BODY)])
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(BODY)
        assert read_answer(sock)[0] == 200


def test_bounds_hold_for_bodies_that_came_at_once():
    config = ServeConfig(max_body_mib=1e-4, access_log=False)
    with running(app_of(InstantEngine(), config), **server_settings()) as port:
        with connect(port) as sock:
            sock.sendall(post(body=b" " * 200 + BODY))
            assert read_answer(sock)[0] == 413
        with connect(port) as sock:
            sock.sendall(post(Content_Encoding="gzip"))
            assert read_answer(sock)[0] == 415


def test_other_paths_go_the_usual_way(port):
    with connect(port) as sock:
        sock.sendall(post("/v2/repository/index", b"{}"))
        status, answer, _ = read_answer(sock)
        assert status == 200
        assert len(answer) > 1
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock)[0] == 200
