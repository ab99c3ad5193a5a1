"""What 8 bits gain and cost on one core: ResNet-18, the layer search, and a fraud run.

Ratios are of medians of runs in turns on one thread, so that other load hits both sides alike;
each ratio comes with its spread over pairs of neighbouring runs. Pin the process to one core:
`taskset -c 1 python -m pytest benchmarks/bench_compress.py -s`. The fraud part takes a finished
run's folder from the environment variable DEEPKITS_FRAUD_RUN.
"""

import json
import os
import statistics
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from core.compress.config import QuantizeConfig
from core.compress.measure import latencies_ms, predictor
from core.compress.quantize import quantize
from core.convert.export import export_onnx
from core.convert.source import Axis, Source
from core.train.run import environment, write_atomic

RESULTS = Path(__file__).parent / "results" / "compress.json"
PACKAGES = ("numpy", "onnx", "onnxruntime", "torch", "torchvision")
MAX_RELATIVE_ERROR = 0.017
MAX_AP_LOSS = 0.002
RUNS = 60

pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def results():
    """Filled by the benchmarks, added to the file at the end, printed with -s."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found["machine"] = {k: v for k, v in environment().items() if k not in ("command", "packages")}
    found["versions"] = {name: metadata.version(name) for name in PACKAGES}
    yield found
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def export_resnet(name, folder):
    """A torchvision ResNet with random weights of seed 0, for 224 px."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    example = {"x": torch.randn(1, 3, 224, 224)}
    source = Source(name, name, model, example, ("y",), {"x": {0: Axis("batch")}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(source, folder / f"{name}.onnx")
    return folder / f"{name}.onnx", sum(p.numel() for p in model.parameters())


def random_pictures(num, seed):
    return np.random.default_rng(seed).standard_normal((num, 3, 224, 224), dtype=np.float32)


def error_metric(path, pictures):
    """Minus the relative L2 error of the output against the float32 model."""
    exact = predictor(path)
    wanted = np.concatenate([exact({"x": one[None]})["y"] for one in pictures])

    def metric(predict):
        found = np.concatenate([predict({"x": one[None]})["y"] for one in pictures])
        return -float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))

    return metric


def in_turns(before, models, inputs, runs):
    """How much faster each model is than the first one, on one thread."""
    taken = {"before": [], **{name: [] for name in models}}
    predicts = {"before": predictor(before), **{n: predictor(p) for n, p in models.items()}}
    for _ in range(runs):
        for name, values in latencies_ms(predicts, inputs, 1).items():
            taken[name] += values
    rows = {"before_ms": round(statistics.median(taken["before"]), 4)}
    for name in models:
        pairs = sorted(b / a for b, a in zip(taken["before"], taken[name], strict=True))
        rows[name] = {
            "ms": round(statistics.median(taken[name]), 4),
            "speed_up": round(statistics.median(pairs), 2),
            "quartiles": [round(pairs[len(pairs) * k // 4], 2) for k in (1, 3)],
        }
    return rows


def test_resnet18(results, tmp_path):
    path, _ = export_resnet("resnet18", tmp_path)
    metric = error_metric(path, random_pictures(16, seed=1))
    made = quantize(
        path, tmp_path / "int8.onnx", {"x": random_pictures(32, seed=2)}, metric=metric,
        max_loss=MAX_RELATIVE_ERROR, cfg=QuantizeConfig(latency_runs=1),
    )  # fmt: skip
    before, after = made.table
    row = in_turns(path, {"int8": made.path}, {"x": random_pictures(1, seed=3)}, RUNS)
    results["resnet18"] = {
        "what": "torchvision, random weights, 224 px, batch 1, calibrated on 32, error over 16",
        "relative_error": round(-after.metric, 5),
        "float_nodes": made.float_nodes,
        "bytes": [before.bytes, after.bytes],
        **row,
        "load_average": round(os.getloadavg()[0], 1),
    }
    assert -after.metric <= MAX_RELATIVE_ERROR
    assert row["int8"]["speed_up"] >= 2.5


def test_search(results, tmp_path):
    """The layers of a ResNet-34 for half the error that 8 bits everywhere would cost."""
    path, num_weights = export_resnet("resnet34", tmp_path)
    metric = error_metric(path, random_pictures(16, seed=1))
    pictures = {"x": random_pictures(32, seed=2)}
    cfg = QuantizeConfig(latency_runs=1)
    free = quantize(path, tmp_path / "all.onnx", pictures, metric=metric, cfg=cfg)
    max_loss = -free.table[1].metric / 2
    wall, cpu = time.perf_counter(), time.process_time()
    made = quantize(
        path, tmp_path / "some.onnx", pictures, metric=metric, max_loss=max_loss, cfg=cfg
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    models = {"all_in_8_bits": free.path, "searched": made.path}
    results["search"] = {
        "what": "ResNet-34, random weights; budget: half of the error of 8 bits everywhere",
        "weights": num_weights,
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "budget": round(max_loss, 5),
        "relative_error": round(-made.table[1].metric, 5),
        "float_nodes": made.float_nodes,
        "notes": made.notes,
        **in_turns(path, models, {"x": random_pictures(1, seed=3)}, RUNS // 2),
        "load_average": round(os.getloadavg()[0], 1),
    }
    assert wall <= 600
    assert -made.table[1].metric <= max_loss


def test_fraud(results, tmp_path):
    """A run's network, trees and blend: each method, at the batches a service meets."""
    if "DEEPKITS_FRAUD_RUN" not in os.environ:
        pytest.skip("DEEPKITS_FRAUD_RUN names no finished fraud run")
    from kits.fraud.kit import KIT

    model = KIT.open_run(Path(os.environ["DEEPKITS_FRAUD_RUN"]))
    path = tmp_path / "float.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(model.source, path)
    rows, made = {}, {}
    for method in ("static", "dynamic"):
        done = quantize(
            path, tmp_path / f"{method}.onnx", model.calibration,
            metric=lambda predict: model.metric(predict)[model.metric_name],
            max_loss=MAX_AP_LOSS, cfg=QuantizeConfig(method=method, latency_runs=1),
        )  # fmt: skip
        before, after = done.table
        made[method] = done.path
        rows[method] = {
            "ap": [round(before.metric, 5), round(after.metric, 5)],
            "bytes": [before.bytes, after.bytes],
            "float_nodes": done.float_nodes,
        }
    for batch in (1, 16, 256):
        repeats = -(-batch // len(next(iter(model.calibration.values()))))
        inputs = {
            name: np.concatenate([value] * repeats)[:batch]
            for name, value in model.calibration.items()
        }
        rows[f"batch_{batch}"] = in_turns(path, made, inputs, RUNS)
    rows["load_average"] = round(os.getloadavg()[0], 1)
    results["fraud"] = rows
    for method in made:
        assert rows[method]["ap"][0] - rows[method]["ap"][1] <= MAX_AP_LOSS
