"""A fraud run on its way to a device: the time to a signed bundle, and what 8 bits cost and gain.

Trains a whole run first, without its baselines; DEEPKITS_FRAUD_RUN names one to take instead.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.train.run import environment, write_atomic
from edge.bundle import Bundle
from edge.trust import Trust

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "export.json"
FIVE = (
    "target.ids=[x86_64-ort-cpu,aarch64-ort-cpu,x86_64-openvino-cpu,"
    "x86_64-openvino-cpu-bf16,portable-onnx,jetson-orin-trt,ascend-310p-om]"
)


def command(folder, *arguments):
    """Run a command; its wall time in seconds."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "DEEPKITS_HOME": str(folder / "keys")}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=variables,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return time.perf_counter() - started


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    command(folder, "edge.keys", "new")
    given = os.environ.get("DEEPKITS_FRAUD_RUN")
    if given is None:
        command(folder, "kits.fraud.train", "baselines=[]")
        (given,) = (folder / "runs" / "fraud").iterdir()
    return folder, Path(given).resolve()


def record(name, row):
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    machine = {k: v for k, v in environment().items() if k not in ("command", "packages")}
    write_atomic(RESULTS, json.dumps(results | {name: row | {"machine": machine}}, indent=2) + "\n")


def export(workplace, name, *overrides):
    folder, run = workplace
    output = folder / name
    seconds = command(folder, "kits.fraud.export", f"run={run}", f"output={output}", *overrides)
    return output, seconds


@pytest.mark.parametrize(("name", "choice"), [("seven", FIVE), ("all", "target=all")])
def test_run_to_signed_bundle(workplace, name, choice):
    output, seconds = export(workplace, name, choice)
    parity = json.loads((output / "parity.json").read_text())
    record(
        f"bundle_{name}",
        {
            "wall_s": round(seconds, 1),
            "bundle_bytes": (output / "fraud.ebundle").stat().st_size,
            "states": {entry["target"]: entry["state"] for entry in parity["targets"]},
        },
    )


def test_two_builds_are_byte_identical(workplace):
    digests = {
        hashlib.sha256(
            (export(workplace, name, FIVE)[0] / "fraud.ebundle").read_bytes()
        ).hexdigest()
        for name in ("first", "second")
    }
    assert len(digests) == 1
    record("two_builds", {"sha256": digests.pop()})


def test_eight_bits(workplace):
    output, seconds = export(workplace, "int8", "target=x86_64", "compress=int8")
    bundle = Bundle.open(output / "fraud.ebundle", Trust.load(workplace[0] / "keys"))
    report = json.loads(bundle.read("reports/compression.json"))
    record("int8", {"wall_s": round(seconds, 1), "compression": report})
