"""From a training run to an answer on a device, by the commands that a person types."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

ROOT = Path(__file__).parents[1]
# What a device has: `pip install '.[edge]'`, and nothing that came with something else.
DEVICE_PACKAGES = ("numpy", "numpy.libs", "onnxruntime", "flatbuffers", "google", "openvino")
NO_TORCH = """
import runpy, sys
sys.path[:0] = sys.argv[1].split(":")
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("torch can be imported here")
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
RUNNABLE = ("x86_64-ort-cpu", "x86_64-openvino-cpu", "x86_64-openvino-cpu-bf16")


@pytest.fixture
def device(tmp_path):
    """Runs `python -m MODULE ARGUMENTS` where `import torch` is impossible."""
    site = tmp_path / "site"
    site.mkdir()
    installed = Path(np.__file__).parents[1]
    for name in DEVICE_PACKAGES:
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    (site / "edge").symlink_to(ROOT / "edge")

    def run(module, *arguments):
        # -I and -S: no site-packages, no working folder, no variable of the environment.
        command = [sys.executable, "-I", "-S", "-c", NO_TORCH, str(site), module, *arguments]
        return call(command, tmp_path)

    return run


def call(command, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DEEPKITS_HOME": str(cwd / "keys")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done.stdout


def opened(page, profile):
    """The text of a page as a browser has it after loading."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed; make system")
    command = "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    command += " --disable-background-networking --disable-component-update --disable-sync"
    command += f" --user-data-dir={profile} --dump-dom {page.as_uri()}"
    done = subprocess.run(command.split(), check=True, capture_output=True, text=True, timeout=90)
    return done.stdout


def served(bundle, batch, cwd):
    """Probabilities from the kit's service, and the answer to its own curl line."""
    command = [sys.executable, "-m", "kits.fraud.serve", f"bundle={bundle}", "server.port=0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DEEPKITS_HOME": str(cwd / "keys")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as service:
        try:
            first = service.stdout.readline()
            assert "fraud@0.1.0 ready on " in first
            lines = [service.stdout.readline() for _ in range(3)]
            answers = [json.loads(call(["bash", "-ec", line], cwd)) for line in lines]
            assert answers[0] == {"state": "ready"}
            assert answers[1]["name"] == "fraud"
            client = tritonclient.http.InferenceServerClient(first.split()[3].split("//")[1])
            inputs = []
            for name, array in batch.items():
                kind = np_to_triton_dtype(array.dtype)
                inputs.append(tritonclient.http.InferInput(name, array.shape, kind))
                inputs[-1].set_data_from_numpy(array)
            found = client.infer("fraud", inputs).as_numpy("probability")
            client.close()
        finally:
            service.terminate()
        assert service.wait(timeout=60) == 0
    return found, answers[2]


def emulator():
    spec = importlib.util.spec_from_file_location("emulator", ROOT / "tests/aarch64/emulator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(900)  # trains, compiles and emulates
def test_a_trained_run_travels_as_one_signed_bundle_to_every_target(tmp_path, device):
    python = (sys.executable, "-m")
    call([*python, "kits.fraud.train", "trainer=smoke", "baselines=[]"], tmp_path)
    (run,) = (tmp_path / "runs" / "fraud").iterdir()
    call([*python, "edge.keys", "new"], tmp_path)
    call([*python, "kits.fraud.export", f"run={run}", "target=all"], tmp_path)
    folder = run / "export"
    bundle = folder / "fraud.ebundle"

    parity = json.loads((folder / "parity.json").read_text())
    states = {entry["id"]: entry["target"]["state"] for entry in parity["targets"]}
    assert states == {
        "portable-onnx": "verified",
        "x86_64-ort-cpu": "verified",
        "x86_64-openvino-cpu": "verified",
        "x86_64-openvino-cpu-bf16": "verified",
        "x86_64-aoti-cpu": "verified",
        "aarch64-ort-cpu": "emulated",
        "any-executorch-xnnpack": "verified",
        "x86_64-trt-rtx": "built",
        "jetson-orin-trt": "contract-only",
        "ascend-310p-om": "contract-only",
        "ascend-910b-om": "contract-only",
    }
    page = opened(folder / "parity.html", tmp_path / "profile")
    assert all(name in page for name in states)

    assert "fraud" in device("edge.verify", bundle)
    samples = np.load(run / "model" / "samples.npz")
    batch = {name: samples[name][:8] for name in samples.files if samples[name].size}
    np.savez(tmp_path / "input.npz", **batch)
    scores = {}
    for target in RUNNABLE:
        output = tmp_path / f"{target}.npz"
        arguments = ("--input", tmp_path / "input.npz", "--output", output, "--device", target)
        assert target in device("edge.run", bundle, *arguments)
        scores[target] = np.load(output)["probability"]
        assert len(scores[target]) == 8
    np.testing.assert_allclose(scores["x86_64-openvino-cpu"], scores["x86_64-ort-cpu"], atol=1e-5)

    found, answer = served(bundle, batch, tmp_path)
    np.testing.assert_allclose(found, scores["x86_64-ort-cpu"], atol=1e-6)
    assert 0 <= answer["payments"][0]["probability"] <= 1

    arm = emulator()
    if reason := arm.reason_to_skip():
        pytest.skip(reason)
    output = tmp_path / "aarch64.npz"
    arguments = ("--input", tmp_path / "input.npz", "--output", output)
    variables = {"DEEPKITS_HOME": str(tmp_path / "keys")}
    done = arm.emulate("-m", "edge.verify", bundle, environment=variables, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = arm.emulate("-m", "edge.run", bundle, *arguments, environment=variables, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(output)["probability"], scores["x86_64-ort-cpu"], atol=1e-5)
