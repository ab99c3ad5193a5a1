import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.serve.chaos import workers_of
from core.serve import lifecycle
from tests.core.serve.onnx_files import write_nan, write_slow, write_times

ROOT = Path(__file__).parents[3]
READY = re.compile(r"(.*) ready on http://127\.0\.0\.1:(\d+) after \d+\.\d\d s\n")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "core.serve", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(*arguments):
    process = start(*arguments, "--port=0", "--no-access-log")
    try:
        line = process.stdout.readline()
        found = READY.fullmatch(line)
        assert found, line + process.stderr.read()
        yield process, found[1], int(found[2])
    finally:
        process.kill()
        process.communicate()


def ask(port, method, path, content=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, None if content is None else json.dumps(content))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def infer(port, name, datatype, data, shape, model="m"):
    tensor = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    status, body = ask(port, "POST", f"/v2/models/{model}/infer", {"inputs": [tensor]})
    answer = json.loads(body)
    assert status == 200, answer
    return answer["outputs"][0]["data"], answer["model_version"]


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_service_says_where_it_is_and_ends_when_told(tmp_path):
    one, two = write_times(tmp_path / "m.onnx", 2.0), write_times(tmp_path / "n.onnx", 3.0)
    with serving(one, f"other={two}") as (process, names, port):
        assert names == "m@1, other@1"
        assert infer(port, "x", "FP32", [1, 2, 3], [1, 3]) == ([2, 4, 6], "1")
        assert infer(port, "x", "FP32", [1, 2, 3], [1, 3], "other") == ([3, 6, 9], "1")
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")


def test_the_lines_to_try_work_as_they_are(tmp_path):
    with serving(write_times(tmp_path / "m.onnx", 2.0)) as (process, _, _):
        lines = [process.stdout.readline() for _ in range(3)]
        answers = [
            json.loads(subprocess.run(["bash", "-c", line], check=True, capture_output=True).stdout)
            for line in lines
        ]
    assert answers[0] == {"state": "ready"}
    assert answers[1]["name"] == "m"
    assert answers[2] == {"y": [[0, 0, 0]]}


def test_sigterm_finishes_the_requests_that_run(tmp_path):
    file = write_slow(tmp_path / "m.onnx", 7.0)
    with serving(file, "--isolation=process", "--max-batch=1") as (process, _, port):
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(infer(port, "n", "INT64", [800], [1])))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        until(lambda: b"deepkits_waiting_requests 2.0" in ask(port, "GET", "/metrics")[1])
        process.terminate()
        # It says so first: balancers send the next ones elsewhere.
        until(lambda: ask(port, "GET", "/ready")[0] == 503)
        assert ask(port, "GET", "/live")[0] == 200
        assert answers == []
        for thread in threads:
            thread.join()
        assert answers == [([7.0], "1")] * 3
        assert process.wait(30) == 0


def test_a_second_sigterm_ends_it_at_once(tmp_path):
    file = write_slow(tmp_path / "m.onnx")
    with serving(file, "--isolation=process", "--max-batch=1") as (process, _, port):
        threading.Thread(target=lambda: ask_and_lose(port), daemon=True).start()
        until(lambda: is_computing(process.pid))
        process.terminate()
        process.terminate()
        until(lambda: ask(port, "GET", "/ready")[0] == 503)
        # Two within a moment are one, passed on twice.
        time.sleep(lifecycle.SAME_S)
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 1
        assert "SIGTERM again" in process.stderr.read()


def is_computing(pid):
    """A worker of the service has used a second of its core."""
    (worker,) = workers_of(pid)
    fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > os.sysconf("SC_CLK_TCK")


def ask_and_lose(port):
    tensor = {"name": "n", "datatype": "INT64", "shape": [1], "data": [10**6]}
    try:
        ask(port, "POST", "/v2/models/m/infer", {"inputs": [tensor]})
    except (OSError, http.client.HTTPException):
        return
    raise AssertionError("it was answered")


def test_a_service_that_loads_is_not_ready_and_can_be_stopped(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    file = write_slow(tmp_path / "m.onnx")
    process = start(file, "--isolation=process", f"--port={port}")
    try:
        # As soon as it can be asked at all.
        status = 0
        while not status:
            try:
                status, _ = ask(port, "GET", "/ready")
            except OSError:
                time.sleep(0.005)
        assert status in (200, 503)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_sighup_reads_the_files_again_and_sigttin_brings_a_worker(tmp_path):
    file = write_times(tmp_path / "m.onnx", 2.0)
    flags = ["--isolation=process", "--max-workers=2", "--watch-s=0"]
    with serving(file, *flags) as (process, _, port):
        write_times(file, 5.0)
        process.send_signal(signal.SIGHUP)
        until(lambda: infer(port, "x", "FP32", [1, 2, 3], [1, 3]) == ([5, 10, 15], "2"))
        for number, workers in ((signal.SIGTTIN, 2), (signal.SIGTTOU, 1)):
            process.send_signal(number)
            line = b"deepkits_workers %d.0" % workers
            until(lambda line=line: line in ask(port, "GET", "/metrics")[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}/nowhere.onnx"], ["nowhere.onnx does not exist"]),
        (["{}/nan.onnx"], ["nan.onnx cannot be served", "self-test"]),
        (["{}/nan.onnx", "--isolation=process"], ["nan.onnx cannot be served", "self-test"]),
        (["{}/text.onnx"], ["text.onnx"]),
        (["{}/m.onnx", "--host=0.0.0.0"], ["host='0.0.0.0' can be reached by others"]),
        (["{}/m.onnx", "--host=203.0.113.1", "--insecure"], ["cannot be listened on"]),
        (["{}/m.onnx", "--tls-certificate={}/text.onnx", "--tls-key={}/text.onnx"], ["tls_cert"]),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, arguments, words):
    write_times(tmp_path / "m.onnx", 2.0)
    write_nan(tmp_path / "nan.onnx")
    (tmp_path / "text.onnx").write_text("this is no model")
    process = start(*(argument.format(tmp_path) for argument in arguments), "--port=0")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1, errors
    for word in words:
        assert word in errors


def test_a_port_that_is_taken_is_told(tmp_path):
    write_times(tmp_path / "m.onnx", 2.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(tmp_path / "m.onnx", f"--port={port}")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"port={port} cannot be listened on: Address already in use" in errors
