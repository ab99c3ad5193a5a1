"""8-bit models: what becomes integer, what stays float, and what the table says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from core.compress.config import CompressConfig, PruneConfig, QuantizeConfig
from core.compress.measure import batches_of, count_flops, predictor
from core.compress.quantize import quantize
from core.compress.sensitivity import choose_float_layers
from tests.core.compress import models

QUICK = {"latency_runs": 2, "calibration_batch": 8}


def error_metric(path, inputs):
    """Minus the relative output error against a model."""
    reference = predictor(path)(inputs)

    def metric(predict):
        outputs = predict(inputs)
        wanted = np.concatenate([value.ravel() for value in reference.values()])
        found = np.concatenate([outputs[name].ravel() for name in reference])
        return -float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))

    return metric


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_quantize_puts_a_convolutional_model_into_integers(tmp_path, calibration):
    path = models.save_cnn(tmp_path / "cnn.onnx")
    x = models.normal(32, 3, 12, 12)
    metric = error_metric(path, {"x": models.normal(16, 3, 12, 12, seed=2)})
    cfg = QuantizeConfig(calibration=calibration, latency_batches=[1, 4], **QUICK)
    made = quantize(path, tmp_path / "cnn8.onnx", {"x": x}, metric=metric, cfg=cfg)
    weights = {t.name: t for t in onnx.load(made.path).graph.initializer}
    integers = [t for t in weights.values() if t.data_type == onnx.TensorProto.INT8]
    assert len([t for t in integers if len(t.dims) > 1]) == 4
    # One scale for each output channel.
    assert list(weights["w0_scale"].dims) == [8]
    assert weights["x_zero_point"].data_type == onnx.TensorProto.UINT8
    before, after = made.table
    assert before.metric == 0
    assert -0.05 < after.metric < 0
    assert before.flops == after.flops > 0
    assert set(after.latency_ms) == {"1", "4"}
    assert min(after.latency_ms.values()) > 0
    assert made.float_nodes == ()
    assert json.loads(json.dumps(made.to_json()))["path"] == "cnn8.onnx"


def test_quantize_raises_an_old_opset_and_says_so(tmp_path):
    g = models.Graph()
    g.node("Gemm", ["x", g.weight("w", 4, 3), g.weight("b", 3)], "y")
    path = g.save(tmp_path / "old.onnx", {"x": ["batch", 4]}, {"y": ["batch", 3]}, opset=11)
    cfg = QuantizeConfig(method="static", **QUICK)
    made = quantize(path, tmp_path / "new.onnx", {"x": models.normal(8, 4)}, cfg=cfg)
    assert "opset 11 raised to 13" in made.notes[0]
    assert "DequantizeLinear" in kinds(made.path)


def test_the_search_leaves_the_spoiled_layer_in_float_and_keeps_the_budget(tmp_path):
    path = models.save_mlp(tmp_path / "mlp.onnx")
    inputs = {"x": models.normal(64, 16)}
    metric = error_metric(path, {"x": models.normal(64, 16, seed=2)})
    cfg = QuantizeConfig(method="static", **QUICK)
    free = quantize(path, tmp_path / "free.onnx", inputs, metric=metric, cfg=cfg)
    max_loss = 0.6 * -free.table[1].metric
    held = quantize(path, tmp_path / "held.onnx", inputs, metric=metric, max_loss=max_loss, cfg=cfg)
    assert -held.table[1].metric <= max_loss < -free.table[1].metric
    assert 1 <= len(held.float_nodes) < 6
    assert sum(kind == "Gemm" for kind in kinds(held.path)) == 6
    assert any("measured one by one" in note for note in held.notes)


def test_a_budget_nothing_can_hold_is_refused(tmp_path):
    path = models.save_mlp(tmp_path / "mlp.onnx", layers=2)
    inputs = {"x": models.normal(16, 16)}
    with pytest.raises(ValueError, match="max_loss=0 leaves no layer of mlp"):
        quantize(
            path, tmp_path / "q.onnx", inputs, metric=error_metric(path, inputs), max_loss=0,
            cfg=QuantizeConfig(**QUICK),
        )  # fmt: skip
    assert not (tmp_path / "q.onnx").exists()


def test_an_lstm_becomes_dynamic_beside_static_products(tmp_path):
    path = models.save_lstm(tmp_path / "lstm.onnx")
    inputs = {"x": models.normal(16, 4, 8)}
    metric = error_metric(path, {"x": models.normal(16, 4, 8, seed=2)})
    cfg = QuantizeConfig(method="static", **QUICK)
    made = quantize(path, tmp_path / "q.onnx", inputs, metric=metric, cfg=cfg)
    assert "DynamicQuantizeLSTM" in kinds(made.path)
    assert "LSTM" not in kinds(made.path)
    assert "DequantizeLinear" in kinds(made.path)
    assert -0.05 < made.table[1].metric < 0
    assert "DynamicQuantizeLSTM exist in ONNX Runtime only" in made.notes
    assert made.table[0].flops == made.table[1].flops == 2 * (4 * (8 + 16) * 64 + 16 * 3)

    cfg.is_portable = True
    made = quantize(path, tmp_path / "p.onnx", inputs, metric=metric, cfg=cfg)
    assert {node.domain for node in onnx.load(made.path).graph.node} <= {"", "ai.onnx"}
    assert made.notes == ()


def test_auto_compares_static_and_dynamic_and_says_what_each_took(tmp_path):
    path = models.save_mlp(tmp_path / "mlp.onnx", layers=2)
    inputs = {"x": models.normal(16, 16)}
    made = quantize(path, tmp_path / "q.onnx", inputs, cfg=QuantizeConfig(**QUICK))
    assert made.method in ("static", "dynamic")
    assert any("static" in note and "dynamic" in note for note in made.notes)


def test_named_nodes_stay_in_float(tmp_path):
    path = models.save_mlp(tmp_path / "mlp.onnx", layers=3)
    inputs = {"x": models.normal(16, 16)}
    cfg = QuantizeConfig(method="static", float_nodes=["gemm1"], **QUICK)
    made = quantize(path, tmp_path / "q.onnx", inputs, cfg=cfg)
    assert made.float_nodes == ("gemm1",)
    weights = {tensor.name for tensor in onnx.load(made.path).graph.initializer}
    assert "w1" in weights
    assert "w0" not in weights
    cfg.float_nodes = ["gemm9"]
    with pytest.raises(ValueError, match=r"gemm9.*choose from gemm0, gemm1, gemm2"):
        quantize(path, tmp_path / "r.onnx", inputs, cfg=cfg)


def test_the_current_folder_stays_empty_where_shapes_cannot_be_inferred(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = models.save_unknown_operator(tmp_path / "unknown.onnx")
    cfg = QuantizeConfig(method="static", **QUICK)
    made = quantize(path, tmp_path / "unknown8.onnx", {"x": models.normal(32, 16)}, cfg=cfg)
    assert any("could not be inferred" in note for note in made.notes)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("budget", [None, 1.0], ids=["no budget", "a budget"])
def test_nodes_of_named_weights_stay_in_float(tmp_path, budget):
    path = models.save_mlp(tmp_path / "mlp.onnx", layers=3)
    inputs = {"x": models.normal(16, 16)}
    cfg = QuantizeConfig(method="static", float_weights=["w2"], **QUICK)
    metric = error_metric(path, inputs) if budget else None
    made = quantize(path, tmp_path / "q.onnx", inputs, metric=metric, max_loss=budget, cfg=cfg)
    assert made.float_nodes == ("gemm2",)
    cfg.float_weights = ["head."]
    with pytest.raises(ValueError, match=r"float_weights=\['head.'\] begin no weight's name"):
        quantize(path, tmp_path / "r.onnx", inputs, cfg=cfg)


def test_a_weights_name_is_that_of_the_runs_own_module():
    from core.compress.integers import begins_so

    assert begins_so("module.head.maps.0.weight", ["head."])
    assert begins_so("head.maps.0.weight", ["neck.", "head."])
    assert not begins_so("overhead.weight", ["head."])
    assert not begins_so("head.weight", [])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "has no samples of x"),
        ({"x": models.normal(2, 16)}, "fewer samples than the model's batch of 4"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(tmp_path, samples, message):
    path = models.save_mlp(tmp_path / "mlp.onnx", layers=1, batch=4)
    with pytest.raises(ValueError, match=message):
        quantize(path, tmp_path / "q.onnx", samples)
    batches = batches_of(path, {"x": models.normal(9, 16)}, 1)
    assert [len(batch["x"]) for batch in batches] == [4, 4]


def test_flops_of_a_convolution_count_two_for_each_multiply_add(tmp_path):
    g = models.Graph()
    g.node("Conv", ["x", g.weight("w", 6, 2, 3, 3)], "y", group=2)
    path = g.save(tmp_path / "c.onnx", {"x": [1, 4, 10, 10]}, {"y": [1, 6, 8, 8]})
    assert count_flops(path, {"x": models.normal(1, 4, 10, 10)}) == 2 * 6 * 64 * 2 * 9


def test_the_search_takes_back_what_it_does_not_need():
    """Layer c alone breaks the budget; a and b have more error for each operation."""
    costs = {"a": 1.0, "b": 1.0, "c": 100.0, "d": 100.0}
    errors = {"a": 0.03, "b": 0.03, "c": 0.2, "d": 0.001}

    def error_without(float_layers):
        return sum(errors[n] ** 2 for n in errors if n not in float_layers) ** 0.5

    choice = choose_float_layers(
        list(costs), loss_with=lambda kept: 0.0 if "c" in kept else 1.0,
        error_without=error_without, cost=costs, max_loss=0.5, max_search_s=60,
    )  # fmt: skip
    assert choice.float_layers == ("c",)


def test_the_search_ends_in_time_with_something_that_holds():
    clock = iter(range(0, 10_000, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: next(clock))
        choice = choose_float_layers(
            [str(n) for n in range(64)], loss_with=lambda kept: 64.0 - len(kept),
            error_without=lambda kept: 1.0, cost={str(n): 1.0 for n in range(64)},
            max_loss=10, max_search_s=60,
        )  # fmt: skip
    assert 54 <= len(choice.float_layers) <= 64


def test_nncf_quantises_behind_the_same_call(tmp_path):
    path = models.save_cnn(tmp_path / "cnn.onnx")
    inputs = {"x": models.normal(16, 3, 12, 12)}
    metric = error_metric(path, {"x": models.normal(16, 3, 12, 12, seed=2)})
    cfg = QuantizeConfig(method="nncf", **QUICK)
    made = quantize(path, tmp_path / "q.onnx", inputs, metric=metric, max_loss=0.5, cfg=cfg)
    assert made.method == "nncf"
    assert "QuantizeLinear" in kinds(made.path)
    assert -0.5 <= made.table[1].metric < 0


# A process of its own: NNCF is silent by itself wherever pytest is imported.
SPY = """
import sys, threading
from pathlib import Path
heard = []
sys.addaudithook(lambda event, _: event.startswith("socket.") and heard.append(event))
import numpy as np
from core.compress.quantize import QuantizeConfig, quantize
path, samples = Path(sys.argv[1]), {"x": np.ones((8, 3, 12, 12), np.float32)}
cfg = QuantizeConfig(method="nncf", latency_runs=1)
quantize(path, path.with_name("q.onnx"), samples, cfg=cfg)
assert "pytest" not in sys.modules
assert not heard, heard
assert threading.active_count() == 1, threading.enumerate()
"""


def test_quantising_reports_to_nobody_and_leaves_the_home_folder_alone(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    path = models.save_cnn(tmp_path / "cnn.onnx")
    silent = ("ORT_DISABLE_TELEMETRY", "NNCF_CI", "NNCF_DEV", "CI", "XDG_CACHE_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in silent}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SPY, str(path)],
        env={**environment, "HOME": str(home), "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantizeConfig(method="int4"), "quantize.method='int4' is not one of auto"),
        (lambda: QuantizeConfig(percentile=12), r"percentile=12 is not in \(50, 100\]"),
        (lambda: QuantizeConfig(latency_batches=[]), "latency_batches=.. is not a list"),
        (lambda: PruneConfig(flops_share=1.0), r"prune.flops_share=1.0 is not in \(0, 1\)"),
        (lambda: CompressConfig(max_loss=-1), "compress.max_loss=-1 is not 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
