import json
import re
import socket
import time

import pytest

from core.serve import connection
from core.serve.config import ServeConfig
from core.serve.connection import BoundedProtocol, server_settings
from tests.core.serve.small_engine import app_of, request, running

X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
BODY = json.dumps({"inputs": [X]}).encode()
HEAD = b"POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def short(monkeypatch):
    """Time limits that a test can wait for."""
    monkeypatch.setattr(BoundedProtocol, "head_timeout_s", 0.2)
    monkeypatch.setattr(BoundedProtocol, "read_timeout_s", 0.2)


@pytest.fixture
def port():
    with running(app_of(), **server_settings()) as port:
        yield port


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def send_for_ever(sock):
    while True:
        sock.sendall(b"a" * 65536)


def read_all(sock):
    """Until the server closes."""
    pieces = []
    try:
        while piece := sock.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def read_answer(sock):
    """The status and the JSON of one answer on a connection that stays open."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += sock.recv(65536)
    head, _, body = text.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < size:
        body += sock.recv(65536)
    assert len(body) == size
    return int(head.split()[1]), json.loads(body)


def test_an_answer_names_no_server(port):
    headers = request(port, "POST", "/v2/models/double/infer", BODY).headers
    assert "server" not in headers


def test_a_head_in_pieces_is_read(port):
    with connect(port) as sock:
        for _ in range(2):
            for piece in (
                HEAD[:10],
                HEAD[10:],
                b"Content-Length: %d\r\n\r\n" % len(BODY),
                BODY[:5],
            ):
                sock.sendall(piece)
                time.sleep(0.01)
            sock.sendall(BODY[5:])
            assert read_answer(sock)[0] == 200


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("sent", [b"", b"POST ", HEAD + b"X: "])
def test_a_head_that_does_not_come_is_not_waited_for(port, sent):
    with connect(port) as sock:
        sock.sendall(sent)
        assert read_all(sock) == b""


@pytest.mark.usefixtures("short")
def test_a_second_head_that_does_not_come_is_not_waited_for(port):
    with connect(port) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert read_answer(sock)[0] == 200
        sock.sendall(b"GET /v")
        assert read_all(sock) == b""


@pytest.mark.usefixtures("short")
def test_bytes_of_a_head_do_not_buy_time(port):
    with connect(port) as sock:
        started = time.monotonic()
        try:
            for byte in HEAD * 50:
                sock.sendall(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass
        assert time.monotonic() - started < 5


@pytest.mark.usefixtures("short")
def test_an_idle_connection_is_kept(port):
    with connect(port) as sock:
        for _ in range(2):
            sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert read_answer(sock)[0] == 200
            time.sleep(0.5)


@pytest.mark.parametrize(
    "lines",
    [
        b"X: " + b"a" * 70_000,
        b"".join(b"X-%d: %s\r\n" % (number, b"a" * 900) for number in range(80)),
        b"".join(b"X-%d: a\r\n" % number for number in range(200)),
    ],
)
def test_a_large_head_is_refused(port, lines):
    with connect(port) as sock:
        sock.sendall(HEAD + lines + b"\r\n\r\n")
        assert b" 431 " in read_all(sock).partition(b"\r\n")[0]


def test_a_head_without_end_is_refused(port):
    with connect(port) as sock:
        answer = b""
        try:
            for _ in range(100):
                sock.sendall(b"a" * 8192)
                time.sleep(0.001)
        except OSError:
            pass
        answer = read_all(sock)
        assert answer == b"" or b" 431 " in answer or b" 400 " in answer


def test_pipelined_requests_are_answered_in_order(port):
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connect(port) as sock:
        sock.sendall(one * 3 + HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        text = read_all(sock)
    assert re.findall(rb"HTTP/1.1 (\d+)", text) == [b"200", b"200", b"200", b"400"]


def test_a_refused_body_is_thrown_away_and_the_connection_kept():
    config = ServeConfig(max_body_mib=0.01, access_log=False)
    with running(app_of(config=config), **server_settings()) as port, connect(port) as sock:
        for _ in range(2):
            sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                sock.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
            status, content = read_answer(sock)
            assert (status, "are taken" in content["error"]) == (413, True)
            sock.sendall(b"0\r\n\r\n")


def test_a_refused_body_without_end_is_not(monkeypatch):
    monkeypatch.setattr(connection, "MAX_REFUSED_BYTES", 2**20)
    config = ServeConfig(max_body_mib=0.01, access_log=False)
    with running(app_of(config=config), **server_settings()) as port, connect(port) as sock:
        sock.sendall(HEAD + b"Content-Length: 1000000000\r\n\r\n")
        assert read_answer(sock)[0] == 413
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_for_ever(sock)


@pytest.mark.usefixtures("short")
def test_an_answer_that_nobody_reads_is_given_up():
    sent = []

    async def large(scope, receive, send):
        sent.append(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b"a" * 2**20, "more_body": True})
        finally:
            sent.append(2)

    with running(large, **server_settings()) as port, connect(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 20
        while len(sent) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert sent == [1, 2]
