import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time

import pytest

from core.serve.access_log import AccessLog

REQUEST = {
    "method": "POST",
    "path": "/v2/models/fraud/infer",
    "protocol": "rest",
    "status": 200,
    "code": "ok",
    "seconds": 0.00034567,
}


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # the test closed it
            os.close(end)


def lines_of(pipe):
    os.close(pipe[1])
    with os.fdopen(os.dup(pipe[0]), "rb") as reader:
        return reader.read().splitlines()


def test_a_request_is_one_json_line(pipe):
    log = AccessLog(pipe[1])
    log.request(
        **REQUEST,
        id="r-1",
        tenant="bank",
        model="fraud",
        version="3",
        received_bytes=512,
        sent_bytes=64,
        queue_s=0.0001,
        batch=4,
    )
    log.close()
    (line,) = lines_of(pipe)
    entry = json.loads(line)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry == {
        "id": "r-1",
        "tenant": "bank",
        "method": "POST",
        "path": "/v2/models/fraud/infer",
        "protocol": "rest",
        "model": "fraud",
        "version": "3",
        "status": 200,
        "code": "ok",
        "received_bytes": 512,
        "sent_bytes": 64,
        "seconds": 0.000345,
        "queue_s": 0.0001,
        "batch": 4,
        "trace": "",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/a\nb",
        "/\x1b[31mred",
        "/\x7f",
        "/\x9b31m",
        "/\u2028",
        "/\udcff",
        "/日本",
        '/"\\',
        "/" + "x" * 9000,
        "/" + "\x9b" * 9000,
    ],
)
def test_what_a_caller_writes_cannot_leave_its_line(pipe, path):
    log = AccessLog(pipe[1])
    log.request(**{**REQUEST, "path": path})
    log.close()
    (line,) = lines_of(pipe)
    assert line.isascii()
    assert not re.search(rb"[\x00-\x1f\x7f]", line)
    assert path.startswith(json.loads(line)["path"])
    assert len(line) < 4096


def test_lines_come_without_close(pipe):
    log = AccessLog(pipe[1])
    log.request(**REQUEST)
    assert json.loads(os.read(pipe[0], 65536))["status"] == 200  # the timeout of the test applies
    log.request(**{**REQUEST, "status": 404})
    assert json.loads(os.read(pipe[0], 65536))["status"] == 404
    log.close()


def test_a_reader_that_does_not_read_costs_lines_and_nothing_else(pipe):
    dropped = []
    log = AccessLog(pipe[1], dropped.append, limit_bytes=200_000)
    for _ in range(3000):
        log.request(**REQUEST)
    assert sum(dropped) > 1000
    log.close(timeout_s=0.1)  # the thread waits in write; close does not
    with os.fdopen(os.dup(pipe[0]), "rb") as reader:
        for _ in range(3000 - sum(dropped)):  # all that was taken arrives once somebody reads
            assert json.loads(reader.readline())["code"] == "ok"


def test_room_is_there_again_once_the_reader_reads(pipe):
    dropped = []
    log = AccessLog(pipe[1], dropped.append, limit_bytes=1000)
    while not dropped:
        log.request(**REQUEST)
    os.read(pipe[0], 65536)
    num_dropped = len(dropped)
    deadline = time.monotonic() + 30
    while len(dropped) == num_dropped or not log._bytes:
        assert time.monotonic() < deadline
        num_dropped = len(dropped)
        log.request(**REQUEST)
        time.sleep(0.01)
    log.close()


def test_a_reader_that_went_away_is_counted_and_survived(pipe):
    dropped = []
    log = AccessLog(pipe[1], dropped.append)
    os.close(pipe[0])
    log.request(**REQUEST)
    log.close(timeout_s=30)
    assert dropped == [1]


def test_a_pipe_that_does_not_block_loses_nothing(pipe):
    fcntl.fcntl(pipe[1], fcntl.F_SETFL, os.O_NONBLOCK)
    log = AccessLog(pipe[1])
    for _ in range(1000):  # more than a pipe holds
        log.request(**REQUEST)
    reader = os.fdopen(os.dup(pipe[0]), "rb")
    lines = [reader.readline() for _ in range(1000)]
    reader.close()
    assert all(json.loads(line)["code"] == "ok" for line in lines)
    log.close()


def test_a_line_after_close_is_counted_as_lost(pipe):
    dropped = []
    log = AccessLog(pipe[1], dropped.append)
    log.close()
    log.request(**REQUEST)
    assert dropped == [1]
    assert lines_of(pipe) == []


def test_the_last_lines_are_written_when_the_process_ends():
    program = f"from core.serve.access_log import AccessLog\nAccessLog().request(**{REQUEST!r})\n"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True
    )
    assert json.loads(result.stdout)["path"] == REQUEST["path"]
