"""A fraud run on its way to a device: the time to a signed bundle, and what 8 bits cost and gain.

Trains a whole run first, without its baselines; DEEPKITS_FRAUD_RUN names one to take instead.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score

from core.train.run import environment, write_atomic
from edge.bundle import Bundle
from edge.pipeline import Pipeline
from edge.trust import Trust
from kits.fraud.exportable import last_period, scorer_inputs, train_config

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "export.json"
TEST_EVENTS, ROUNDS = 20_000, 300
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
def prepared(tmp_path_factory):
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


def export(prepared, name, *overrides):
    folder, run = prepared
    output = folder / name
    seconds = command(folder, "kits.fraud.export", f"run={run}", f"output={output}", *overrides)
    return output, seconds


@pytest.mark.parametrize(("name", "choice"), [("seven", FIVE), ("all", "target=all")])
def test_run_to_signed_bundle(prepared, name, choice):
    output, seconds = export(prepared, name, choice)
    parity = json.loads((output / "parity.json").read_text())
    record(
        f"bundle_{name}",
        {
            "wall_s": round(seconds, 1),
            "bundle_bytes": (output / "fraud.ebundle").stat().st_size,
            "states": {entry["id"]: entry["target"]["state"] for entry in parity["targets"]},
        },
    )


def test_two_builds_are_byte_identical(prepared):
    digests = {
        hashlib.sha256((export(prepared, name, FIVE)[0] / "fraud.ebundle").read_bytes()).hexdigest()
        for name in ("first", "second")
    }
    assert len(digests) == 1
    record("two_builds", {"sha256": digests.pop()})


def test_eight_bits(prepared):
    folder, run = prepared
    trust = Trust.load(folder / "keys")
    outputs = {
        "float32": export(prepared, "float32", "target=x86_64")[0],
        "int8": export(prepared, "int8", "target=x86_64", "compress=int8")[0],
    }
    bundles = {name: Bundle.open(out / "fraud.ebundle", trust) for name, out in outputs.items()}
    # Which layers stay in float was chosen on validation rows; these are the test rows.
    config = yaml.safe_load((run / "config.yaml").read_text())
    task, rows = last_period(train_config(config), TEST_EVENTS)
    label = task.arrays.label[rows]
    parts = [scorer_inputs(task, rows[k : k + 64]) for k in range(0, len(rows), 64)]
    pipelines = {
        name: Pipeline.open(bundle, device="x86_64-ort-cpu", threads=1)
        for name, bundle in bundles.items()
    }
    ap = {
        name: average_precision_score(
            label, np.concatenate([pipeline.predict(part)["logit"] for part in parts])
        )
        for name, pipeline in pipelines.items()
    }
    record(
        "int8",
        {
            "test_rows": len(rows),
            "test_ap": {name: round(float(value), 5) for name, value in ap.items()},
            "float32_over_int8_time": {
                str(batch): speed_up(pipelines, {k: v[:batch] for k, v in parts[0].items()})
                for batch in (1, 16, 64)
            },
            "compression": json.loads(bundles["int8"].read("reports/compression.json")),
        },
    )


def speed_up(pipelines, inputs):
    """Median and quartiles of the ratio of neighbouring predictions, one thread each."""
    ratios = []
    for _ in range(ROUNDS):
        seconds = {}
        for name, pipeline in pipelines.items():
            started = time.perf_counter()
            pipeline.predict(inputs)
            seconds[name] = time.perf_counter() - started
        ratios.append(seconds["float32"] / seconds["int8"])
    low, median, high = statistics.quantiles(ratios[ROUNDS // 10 :], n=4)
    return {"median": round(median, 2), "quartiles": [round(low, 2), round(high, 2)]}
