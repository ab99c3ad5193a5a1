import json

import numpy as np
import pytest
import yaml

from core.convert.config import ExportConfig, TargetConfig
from core.convert.job import export_run
from edge.arrays import read_npz
from edge.bundle import Bundle
from edge.keys import new_key
from edge.pipeline import Pipeline
from edge.selftest import VECTORS
from kits.fraud.exportable import last_period, scorer_inputs, train_config
from kits.fraud.kit import KIT
from kits.fraud.scores import load_scores
from kits.fraud.service import FraudService

# The first test trains the run that they share.
pytestmark = pytest.mark.timeout(400)

IDS = ["x86_64-ort-cpu", "aarch64-ort-cpu", "x86_64-openvino-cpu", "portable-onnx"]
# Training standardises events once and keeps them in half precision; a bundle gets raw ones.
HALF_PRECISION = 5e-3


@pytest.fixture(scope="module")
def trust(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trust")
        patch.setenv("DEEPKITS_HOME", str(folder))
        new_key(folder)
        yield folder


@pytest.fixture(scope="module")
def exported(finished_run, trust):
    return export_run(ExportConfig(run=str(finished_run), target=TargetConfig(IDS)), KIT)


@pytest.fixture(scope="module")
def bundle(exported):
    return Bundle.open(exported.bundle)


def test_the_service_takes_its_own_example_as_the_model_takes_the_vector(exported, bundle):
    service = FraudService.open(exported.bundle)
    arrays = service.decode(service.example)
    vectors = read_npz(bundle.read(VECTORS))
    pipeline = Pipeline.open(bundle, device="x86_64-ort-cpu")
    vector = {name: vectors[f"input/{name}"][:1] for name in arrays}
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (vector[name].dtype, vector[name].shape)
    # Padding differs; the model does not see it.
    found, expected = pipeline.predict(arrays), pipeline.predict(vector)
    np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-5)
    (answer,) = service.encode(found)["payments"]
    assert answer["probability"] == found["probability"][0]


def test_the_bundle_decides_as_the_run_did(finished_run, bundle):
    task, rows = last_period(
        train_config(yaml.safe_load((finished_run / "config.yaml").read_text())), 10**9
    )
    stored = load_scores(finished_run / "scores.npz").periods[-1].test["deepkits"]
    pipeline = Pipeline.open(bundle, device="x86_64-ort-cpu")
    parts = [rows[k : k + 512] for k in range(0, len(rows), 512)]
    answers = [pipeline.predict(scorer_inputs(task, part)) for part in parts]
    found = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    assert set(found) == {"logit", "probability", "alert"}
    assert np.abs(found["logit"] - stored.score).max() < HALF_PRECISION
    facts = json.loads((finished_run / "model" / "model.json").read_text())
    clear = np.abs(stored.score - facts["threshold"]) > HALF_PRECISION
    assert np.array_equal(found["alert"][clear], (stored.score >= facts["threshold"])[clear])
    levels = facts["stack"]
    expected = np.interp(found["logit"], levels["level"], levels["level_probability"])
    assert np.array_equal(found["probability"], expected)


def test_every_target_was_compared_at_every_batch(exported, bundle):
    report = json.loads(bundle.read("reports/parity.json"))
    assert report["passed"] is True
    assert [entry["id"] for entry in report["targets"]] == IDS
    for entry in report["targets"]:
        assert {case["sizes"]["batch"] for case in entry["parity"]["cases"]} >= {1, 64}
    assert set(exported.tested) == set(IDS) - {"aarch64-ort-cpu"}


def test_the_bundle_holds_no_row_of_the_data(finished_run, bundle):
    from edge.arrays import read_npz

    vectors = read_npz(bundle.read("selftest/vectors.npz"))
    assert len(vectors["output/logit"]) == 16
    with np.load(finished_run / "model" / "samples.npz") as samples:
        real = {row.tobytes() for row in samples["x_history"]}
    assert not real & {row.tobytes() for row in vectors["input/x_history"]}


def test_the_bundle_says_where_it_came_from(finished_run, bundle):
    build = json.loads(bundle.read("provenance.json"))["predicate"]["buildDefinition"]
    data = json.loads((finished_run / "data.json").read_text())["sha256"]
    assert build["resolvedDependencies"][0] == {"name": "data", "digest": {"sha256": data}}
    assert build["externalParameters"]["kit"] == "fraud"
    assert len(build["internalParameters"]["features"]) == 113


def test_two_exports_are_the_same_bytes(finished_run, exported, tmp_path):
    cfg = ExportConfig(run=str(finished_run), output=str(tmp_path / "again"))
    cfg.target = TargetConfig(IDS)
    assert export_run(cfg, KIT).bundle.read_bytes() == exported.bundle.read_bytes()


def test_in_8_bits_the_ranking_holds(finished_run, trust, tmp_path):
    from core.compress.config import CompressConfig

    cfg = ExportConfig(
        run=str(finished_run),
        output=str(tmp_path / "int8"),
        target=TargetConfig(["x86_64-ort-cpu", "portable-onnx"]),
        compress=CompressConfig(is_quantized=True),
    )
    bundle = Bundle.open(export_run(cfg, KIT).bundle)
    report = json.loads(bundle.read("reports/compression.json"))
    before, after = report["table"]
    assert report["metric"] == "validation_ap"
    assert before["metric"] - after["metric"] <= cfg.compress.max_loss
    assert after["bytes"] < before["bytes"]
