import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from core.serve.service import ServiceDeployer
from tests.core.serve.onnx_files import write_nan, write_times
from tests.core.serve.test_lifecycle import infer, until

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from core.serve.service import ServiceDeployer
deployer = ServiceDeployer(model_path="m.onnx", port=0, access_log=False)
deployment = deployer.deploy({arguments})
print(deployment.url, deployment.pid, flush=True)
{rest}
"""


def run_script(folder, arguments="", rest=""):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(arguments=arguments, rest=rest)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        # Of the service, whose output is the same.
        if line.startswith("http"):
            url, pid = line.split()
            return process, url, int(pid)
    raise AssertionError(process.stderr.read())


def port_of(url):
    return int(url.rpartition(":")[2])


def is_ready(url):
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def serves_on(script):
    """It handles SIGTERM by now, which Python does not by itself."""
    status = Path(f"/proc/{script.pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return caught >> (signal.SIGTERM - 1) & 1


@pytest.fixture
def model(tmp_path):
    return write_times(tmp_path / "m.onnx", 2.0)


def test_a_deployed_service_answers_until_it_is_stopped(model):
    deployer = ServiceDeployer(model_path=model, port=0, access_log=False, name="mine")
    with deployer.deploy(auto_scale=True) as deployment:
        assert deployer.deployment is deployment
        assert (deployment.models, deployment.is_running) == (("mine@1",), True)
        assert is_ready(deployment.url)
        answer = infer(port_of(deployment.url), "x", "FP32", [1, 2, 3], [1, 3], "mine")
        assert answer == ([2, 4, 6], "1")
        with pytest.raises(RuntimeError, match="the service runs already at http"):
            deployer.deploy()
        with pytest.raises(TimeoutError, match="still runs"):
            deployment.wait(timeout_s=0.01)
    assert not deployment.is_running
    assert not is_there(deployment.pid)
    assert not is_ready(deployment.url)
    # Stopping what is stopped is no mistake.
    assert deployment.stop() == 0
    with deployer.deploy() as again:
        assert is_ready(again.url)


def test_a_mistake_is_told_before_anything_is_started(model):
    with pytest.raises(ValueError, match="does not exist"):
        ServiceDeployer(model_path="nowhere.onnx")
    with pytest.raises(ValueError, match="slo_ms=-1"):
        ServiceDeployer(model_path=model, slo_ms=-1)
    with pytest.raises(TypeError, match="moon"):
        ServiceDeployer(model_path=model, moon=1)


def test_what_keeps_the_service_from_starting_is_raised_in_its_words(tmp_path):
    file = write_nan(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"m\.onnx cannot be served: .*self-test"):
        ServiceDeployer(model_path=file, port=0).deploy()


def test_a_script_that_only_deploys_serves_on_until_it_is_told_to_end(model):
    process, url, pid = run_script(model.parent)
    until(lambda: serves_on(process))
    assert is_ready(url)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert not is_there(pid)


def test_blocking_serves_before_it_returns(model):
    rest = "print('after', deployment.is_running)"
    script = SCRIPT.replace("print(deployment.url, deployment.pid, flush=True)", "")
    process = subprocess.Popen(
        [sys.executable, "-c", script.format(arguments="block=True", rest=rest)],
        cwd=model.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "m@1 ready on " in process.stdout.readline()
    until(lambda: serves_on(process))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert output.endswith("after False\n")


@pytest.mark.parametrize(
    ("arguments", "rest", "code"),
    [("", "raise ValueError('mine')", 1), ("block=False", "", 0)],
    ids=["failed", "not blocking"],
)
def test_the_service_ends_with_a_script_that_fails_or_does_not_block(model, arguments, rest, code):
    process, url, pid = run_script(model.parent, arguments, rest)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert not is_there(pid)
    assert not is_ready(url)


def test_a_killed_script_leaves_no_service_behind(model):
    process, _, pid = run_script(model.parent)
    process.kill()
    process.communicate()
    until(lambda: not is_there(pid))
