import json
import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from core.compress.config import CompressConfig
from core.convert import job
from core.convert.config import ExportConfig, TargetConfig
from core.convert.job import ExportError, export_run
from core.convert.source import Axis, Source
from core.kit import Exportable, Kit
from edge.bundle import Bundle
from edge.keys import new_key
from edge.pipeline import Pipeline

IDS = ["x86_64-ort-cpu", "aarch64-ort-cpu", "portable-onnx"]


def tiny_onnx():
    weight = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


SOURCE = Source(
    name="tiny",
    origin="test",
    module=None,
    example={"x": torch.zeros(1, 3)},
    output_names=("y",),
    axes={"x": {0: Axis("batch", 1, 8)}},
    onnx=tiny_onnx(),
)
EXPORTABLE = Exportable(
    source=SOURCE,
    pre=[],
    post=[{"op": "threshold", "input": "y", "output": "alert", "at": 0.5}],
    calibration={"x": np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)},
    metric=None,
    metric_name="",
    config_schema={"type": "object"},
    config_default={},
    provenance={"network": "tiny"},
    license="Apache-2.0",
    intended_use="tests",
)
KIT = Kit("toy", {}, {}, lambda cfg: cfg, lambda cfg: cfg, lambda run: EXPORTABLE)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPKITS_HOME", str(tmp_path / "trust"))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    new_key(tmp_path / "trust")
    folder = tmp_path / "runs" / "toy" / "first"
    folder.mkdir(parents=True)
    environment = {
        "kit": "toy",
        "time": "2026-01-02T03:04:05+00:00",
        "command": ["/home/somebody/kits/toy/train.py", "trainer=smoke", "data.path=/home/x/a.csv"],
        "packages": {"torch": "2", "unheard-of": "1"},
        "git_commit": "abc",
        "git_dirty": False,
        "python": "3.11",
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "data.json").write_text(json.dumps({"sha256": "d" * 64}))
    (folder / "config.yaml").write_text("a: 1\n")
    return folder


def config(run, output=None, ids=IDS, **values):
    return ExportConfig(
        run=str(run), output=output and str(output), target=TargetConfig(list(ids)), **values
    )


def test_an_export_leaves_a_bundle_that_predicts_what_the_source_does(run):
    exported = export_run(config(run), KIT)
    assert exported.folder == run / "export"
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(
        [*IDS, "parity.html", "parity.json", "toy.ebundle"]
    )
    assert [(row.id, row.state) for row in exported.rows] == [
        ("x86_64-ort-cpu", "verified"),
        ("aarch64-ort-cpu", "emulated"),
        ("portable-onnx", "verified"),
    ]
    bundle = Bundle.open(exported.bundle)
    assert bundle.manifest.created == 1767323045
    assert bundle.manifest.targets == tuple(IDS)
    sample = {"x": np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)}
    got = Pipeline.open(bundle, device="portable-onnx").predict(sample)
    expected = SOURCE.run(sample)["y"]
    assert np.abs(got["y"] - expected).max() < 1e-6
    assert np.array_equal(got["alert"], expected >= 0.5)
    report = json.loads(bundle.read("reports/parity.json"))
    assert report["passed"] is True
    # Nothing of this machine or its users.
    statement = bundle.read("provenance.json").decode()
    assert "train.py" in statement
    assert "somebody" not in statement
    assert str(run.parent) not in statement
    assert "unheard-of" not in statement


def test_two_exports_into_two_folders_are_the_same_bytes(run, tmp_path):
    first = export_run(config(run, tmp_path / "one"), KIT).bundle.read_bytes()
    second = export_run(config(run, tmp_path / "deep" / "two"), KIT).bundle.read_bytes()
    assert first == second


def test_source_date_epoch_sets_the_time(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    exported = export_run(
        config(run, ids=["portable-onnx"], valid_days=36500.0),
        KIT,
    )
    manifest = Bundle.open(exported.bundle, now=1700000001).manifest
    assert (manifest.created, manifest.expires) == (1700000000, 1700000000 + 36500 * 86400)


def test_exporting_again_replaces_the_earlier_export_and_nothing_else(run, tmp_path):
    export_run(config(run), KIT)
    export_run(config(run, ids=["portable-onnx"]), KIT)
    assert not (run / "export" / "x86_64-ort-cpu").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("unsaved")
    with pytest.raises(ValueError, match="holds other things than an export"):
        export_run(config(run, other), KIT)
    assert (other / "chapter.txt").read_text() == "unsaved"


class Wrong:
    def __init__(self):
        self.facts = {"backend": "x", "runtime": "1", "provider": "cpu", "precision": "float32"}

    def run(self, inputs):
        return {"y": SOURCE.run(inputs)["y"] + 0.01}


def test_a_target_that_computes_something_else_leaves_nothing(run, monkeypatch):
    from core.convert.targets.onnx import OnnxConverter

    monkeypatch.setattr(OnnxConverter, "open", lambda self, artifact: Wrong())
    with pytest.raises(ExportError, match=r"'portable-onnx' does not compute what .*batch=1"):
        export_run(config(run), KIT)
    assert [path.name for path in run.iterdir() if "export" in path.name] == []


def test_a_target_that_cannot_be_made_ends_the_export_unless_it_may_be_skipped(run, monkeypatch):
    from core.convert.targets.onnxruntime import OnnxRuntimeConverter

    def refuse(self, *_):
        raise ModuleNotFoundError("onnxruntime is not installed; pip install .[edge]")

    monkeypatch.setattr(OnnxRuntimeConverter, "convert", refuse)
    with pytest.raises(ExportError, match=r"'x86_64-ort-cpu' cannot be made: .*\.\[edge\]"):
        export_run(config(run), KIT)
    assert not (run / "export").exists()
    exported = export_run(replace(config(run), target=TargetConfig(IDS, skip_missing=True)), KIT)
    assert [row.state for row in exported.rows] == ["skipped", "skipped", "verified"]
    assert Bundle.open(exported.bundle).manifest.targets == ("portable-onnx",)
    only = TargetConfig(IDS[:2], skip_missing=True)
    with pytest.raises(ExportError, match="no target could be made"):
        export_run(replace(config(run), target=only), KIT)


def test_a_bundle_whose_self_test_fails_is_not_left(run, monkeypatch):
    golden = job.golden_vectors

    def wrong(source, num_rows, seed):
        vectors = golden(source, num_rows, seed)
        return {**vectors, "output/y": vectors["output/y"] + 0.01}

    monkeypatch.setattr(job, "golden_vectors", wrong)
    with pytest.raises(ValueError, match="self-test"):
        export_run(config(run), KIT)
    assert [path.name for path in run.iterdir() if "export" in path.name] == []


def test_an_engine_that_differs_at_each_build_stays_outside_unless_asked_for(run, monkeypatch):
    from core.convert.targets.onnx import OnnxConverter

    made = OnnxConverter.convert

    def convert(self, source, model, folder, target_id, options):
        artifact = made(self, source, model, folder, target_id, options)
        changed = onnx.load(str(artifact.path))
        changed.doc_string = os.urandom(4).hex()
        onnx.save(changed, str(artifact.path))
        return replace(artifact, is_reproducible=False)

    monkeypatch.setattr(OnnxConverter, "convert", convert)
    ids = ["x86_64-ort-cpu", "portable-onnx"]
    outside = export_run(config(run, ids=ids), KIT)
    bundle = Bundle.open(outside.bundle)
    assert not [name for name in bundle.files if name.startswith("artifacts/portable-onnx")]
    assert bundle.targets["portable-onnx"].state == "contract-only"
    assert bundle.targets["portable-onnx"].recipe["commands"]
    assert (outside.folder / "portable-onnx" / "tiny.onnx").is_file()
    inside = export_run(config(run, ids=ids, engines=True), KIT)
    assert "artifacts/portable-onnx/tiny.onnx" in Bundle.open(inside.bundle).files


def test_a_run_of_another_kit_an_unfinished_run_and_a_missing_key_are_refused(run, monkeypatch):
    other = replace(KIT, name="other")
    with pytest.raises(ValueError, match=r"is a run of kit 'toy'; use kits\.toy\.export"):
        export_run(config(run), other)
    monkeypatch.setenv("DEEPKITS_HOME", str(run / "nowhere"))
    with pytest.raises(ValueError, match=r"no key to sign with; .*python -m edge\.keys new"):
        export_run(config(run), KIT)
    (run / "data.json").unlink()
    with pytest.raises(ValueError, match=r"has no data\.json; name a finished run"):
        export_run(config(run), KIT)


def test_a_compressed_model_is_made_once_and_reported(run, tmp_path):
    cfg = CompressConfig(is_quantized=True)
    first = export_run(config(run, tmp_path / "one", compress=cfg), KIT)
    made = sorted((run / "compress").rglob("*.onnx"))
    second = export_run(config(run, tmp_path / "two", compress=cfg), KIT)
    assert sorted((run / "compress").rglob("*.onnx")) == made
    assert first.bundle.read_bytes() == second.bundle.read_bytes()
    bundle = Bundle.open(first.bundle)
    assert bundle.targets["portable-onnx"].precision == "int8"
    assert len(json.loads(bundle.read("reports/compression.json"))["table"]) == 2


def test_pruning_is_refused_because_it_needs_training(run):
    cfg = config(run, compress=CompressConfig(is_pruned=True))
    with pytest.raises(
        ValueError, match=r"is_pruned=true is not for .*; use core\.compress\.prune"
    ):
        export_run(cfg, KIT)
    assert not (run / "export").exists()
