import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from core.schedule.model_file import hash_model
from core.serve.config import ModelFile, ServeConfig
from core.serve.ray_engine import ReplicaApp, _reason, serve_on_ray

ROOT = Path(__file__).parents[3]
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
).encode()
# Two nodes of one machine; each line on stdin kills or adds one.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
cluster = Cluster()
cluster.add_node(include_dashboard=False, **size)
node = cluster.add_node(**size)
cluster.wait_for_nodes()
print("address", cluster.address, flush=True)
for line in sys.stdin:
    if line == "kill\\n":
        cluster.remove_node(node, allow_graceful=False)
    else:
        node = cluster.add_node(**size)
    print("done", flush=True)
cluster.shutdown()
"""


def save(file, node):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 3], [2, 0, 0, 0, 2, 0, 0, 0, 2])
    graph = helper.make_graph(
        [node],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), file)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "double.onnx"
    save(file, helper.make_node("MatMul", ["x", "w"], ["y"]))
    return file


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grpc_port": 8001}, "grpc_port=8001 is not offered by engine='ray'"),
        (
            {"tls_client_ca": Path("a"), "tls_certificate": Path("b"), "tls_key": Path("c")},
            "tls_client_ca=a is not offered",
        ),
        ({"models": [ModelFile("m", Path("nowhere.onnx"))]}, "nowhere.onnx cannot be served"),
    ],
)
def test_what_ray_has_not_is_told_before_it_starts(settings, words):
    with pytest.raises(ValueError, match=words):
        serve_on_ray(ServeConfig(**settings), {}, on_ready=print)
    assert "ray" not in sys.modules


def test_the_reason_of_a_failed_start_is_its_last_error():
    told = (
        "Deploying failed: Traceback\n  File\nKeyError: 'a'\nduring\nValueError: model.onnx: no\n"
    )
    assert _reason(told) == "model.onnx: no"
    assert _reason("timed out") == "timed out"


def test_a_replica_refuses_a_file_that_is_not_the_one_meant(model):
    config = ServeConfig([ModelFile("double", model)])
    app = ReplicaApp(config, {model: "0" * 64}, {})
    with pytest.raises(ValueError, match=r"sha256 .* where the service was started 00000000"):
        asyncio.run(app.start())
    with pytest.raises(RuntimeError, match="not ready"):
        app.check_health()
    assert hash_model(model) != "0" * 64


def ask(url, timeout_s=30):
    request = urllib.request.Request(
        f"{url}/v2/models/double/infer", BODY, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        return json.load(response)["outputs"][0]["data"]


class Processes:
    """Those with a mark in their environment: what a service on Ray started, and its children."""

    def __init__(self, folder):
        self.mark = f"DEEPKITS_TEST_MARK={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.environment = os.environ | {name: value, "HOME": str(folder), "OMP_NUM_THREADS": "1"}
        self.started = []
        self.environment.pop("RAY_ADDRESS", None)

    def start(self, *arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self):
        for pid in self.running():
            os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.communicate()

    def running(self):
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in folder.joinpath("environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it ended, or ends
                continue
        return found

    def replicas(self):
        names = []
        for pid in self.running():
            try:
                names.append(Path(f"/proc/{pid}/cmdline").read_text())
            except OSError:
                continue
        return sum(name.startswith("ray::ServeReplica") for name in names)

    def wait_replicas(self, number, timeout_s=60):
        until = time.monotonic() + timeout_s
        while self.replicas() != number:
            assert time.monotonic() < until, f"{self.replicas()} replicas, not {number}"
            time.sleep(0.1)

    def listening(self):
        """Addresses, as the kernel writes them: hexadecimal."""
        inodes = set()
        for pid in self.running():
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    inodes.add(str(link.readlink()))
                except OSError:
                    continue
        lines = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        ]
        return {
            row[1].split(":")[0]
            for row in lines
            if row[3] == "0A" and f"socket:[{row[9]}]" in inodes
        }

    def wait_gone(self, timeout_s=60):
        until = time.monotonic() + timeout_s
        while (left := self.running()) and time.monotonic() < until:
            time.sleep(0.2)
        return left


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path)
    yield processes
    processes.end()


def first_line(process, word):
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"it ended with {process.wait()}")


def start_service(processes, model, *flags, **environment):
    service = processes.start(
        *("-m", "core.serve", f"double={model}", "--port", "0", "--engine", "ray", *flags),
        **environment,
    )
    line = first_line(service, "ready on")
    return service, line.split(" ready on ")[1].split()[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_service_on_ray_listens_on_loopback_alone_and_leaves_nothing(processes, model, tmp_path):
    before = set(Path("/tmp").glob("ray*"))
    service, url = start_service(processes, model)
    assert ask(url) == [2.0, 4.0, 6.0]
    assert urllib.request.urlopen(f"{url}/v2/health/ready").status == 200
    # 127.0.0.1 as the kernel writes it, alone and mapped into IPv6.
    assert processes.listening() == {"0100007F", "0000000000000000FFFF00000100007F"}
    service.send_signal(signal.SIGTERM)
    assert service.wait(timeout=60) == 0
    assert processes.wait_gone() == []
    assert set(Path("/tmp").glob("ray*")) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_model_that_cannot_be_served_ends_the_start_with_its_reason(processes, tmp_path):
    broken = tmp_path / "broken.onnx"
    save(broken, helper.make_node("Nothing", ["x", "w"], ["y"], domain="nowhere"))
    service = subprocess.run(
        [sys.executable, "-m", "core.serve", str(broken), "--port", "0", "--engine", "ray"],
        cwd=ROOT,
        env=processes.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert service.returncode == 2
    assert "broken.onnx cannot be served" in service.stderr.splitlines()[-1]
    assert processes.wait_gone() == []


class Traffic:
    """Clients that ask again, a few times, where an answer is none."""

    def __init__(self, url, clients=3):
        self.url = url
        self.answered = self.retried = 0
        self.failed = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopping.is_set():
            error = self.ask()
            with self.lock:
                self.answered += error is None
                if error is not None:
                    self.failed.append(error)

    def ask(self):
        for _ in range(10):
            try:
                found = ask(self.url)
            except (urllib.error.URLError, OSError) as problem:
                error = repr(problem)
            else:
                return None if found == [2.0, 4.0, 6.0] else f"wrong: {found}"
            with self.lock:
                self.retried += 1
            time.sleep(0.5)
        return error

    def wait_for(self, number):
        until = self.answered + number
        while self.answered < until and not self.failed:
            time.sleep(0.05)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_request_fails_when_a_node_of_two_is_killed(processes, model, tmp_path):
    token = tmp_path / "token"
    token.write_text("0" * 64)
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    # Short: sockets lie in it.
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        environment["RAY_TMPDIR"] = folder
        cluster = processes.start("-c", CLUSTER, **environment)
        address = first_line(cluster, "address").split()[1]
        service, url = start_service(
            processes, model, "--min-workers", "2", **environment, RAY_ADDRESS=address
        )

        def change(what):
            cluster.stdin.write(f"{what}\n")
            cluster.stdin.flush()
            assert cluster.stdout.readline() == "done\n"

        traffic = Traffic(url)
        try:
            processes.wait_replicas(2)
            traffic.wait_for(100)
            change("kill")
            processes.wait_replicas(1)
            traffic.wait_for(200)
            change("add")
            processes.wait_replicas(2)
            traffic.wait_for(200)
        finally:
            traffic.stop()
        assert traffic.failed == []
        assert traffic.answered >= 500
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=60) == 0
        cluster.communicate(timeout=60)
        assert processes.wait_gone() == []
