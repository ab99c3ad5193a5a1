import json

import numpy as np
import pytest

from core.convert.config import ExportConfig, TargetConfig
from core.convert.job import ExportError
from edge.keys import new_key
from edge.pipeline import Pipeline
from kits.defect import exporting
from kits.defect.detecting import Found
from kits.defect.exportable import LOWEST_SCORE, drawing, open_run
from kits.defect.exporting import export_checked, refuse
from kits.defect.service import DefectService
from kits.defect.trained import read_facts
from kits.defect.verdicts import Verdicts, read_frozen, same

TARGETS = ["x86_64-ort-cpu", "x86_64-openvino-cpu"]


@pytest.fixture(scope="module")
def bundle(smoke_run, tmp_path_factory):
    pytest.importorskip("openvino")
    home = tmp_path_factory.mktemp("keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPKITS_HOME", str(home))
        new_key(home)
        cfg = ExportConfig(run=str(smoke_run), target=TargetConfig(TARGETS), num_vectors=8)
        yield export_checked(cfg)


def test_all_runtimes_give_the_same_verdicts(bundle):
    rows = json.loads((bundle.parent / "verdicts.json").read_text())
    assert [row["target"] for row in rows] == TARGETS
    assert all(row["same"] == 1 and row["images"] == 4 for row in rows)


def test_the_bundle_says_what_the_line_asks(bundle, smoke_run):
    from kits.defect.line.detector_file import DetectorFile, find_detector

    facts, file = read_facts(smoke_run), DetectorFile.open(bundle)
    assert file.class_names == tuple(facts["class_names"])
    assert file.threshold(0) == facts["threshold"]
    assert not file.has_template
    assert find_detector(smoke_run) == bundle


def test_a_service_answers_from_the_bundle(bundle):
    service = DefectService.open(bundle)
    inputs = service.decode(service.example)
    outputs = Pipeline.open(bundle, device=TARGETS[0]).predict(inputs)
    answer = service.encode(outputs)
    assert answer["verdict"] == ("NG" if answer["defects"] else "OK")
    assert outputs["boxes"].shape[1:] == (100, 4)


def test_an_export_that_judges_differently_releases_nothing(bundle, smoke_run, monkeypatch):
    before = bundle.read_bytes()
    wrong = [Verdicts("x86_64-ort-cpu", 4, (2,))]
    monkeypatch.setattr(exporting, "compare_bundle", lambda *_: wrong)
    cfg = ExportConfig(run=str(smoke_run), target=TargetConfig(TARGETS[:1]), num_vectors=8)
    with pytest.raises(ExportError, match="judges 1 of 4 frozen images differently"):
        export_checked(cfg)
    assert bundle.read_bytes() == before
    assert [path.name for path in smoke_run.glob("export*")] == ["export"]


def test_verdicts_that_agree_pass():
    refuse([Verdicts("a", 3, ())])


def found(*rows):
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    return Found(boxes, np.ones(len(rows)), np.array([kind for kind, _ in rows], np.int64))


def test_the_same_defects_in_another_order_are_the_same_verdict():
    a, b = (0, (0, 0, 10, 10)), (1, (20, 20, 40, 40))
    assert same(found(a, b), found(b, a))
    assert same(found(), found())
    assert not same(found(a, b), found(a))
    assert not same(found(a), found((1, a[1])))
    assert not same(found(a), found((0, (0, 0, 10, 8))))
    assert not same(found(a, a), found(a, b))


def test_inputs_of_a_bundle_are_drawn_and_the_same_for_a_seed():
    draw = drawing(3, has_template=True)
    sizes = {"batch": 2, "height": 64, "width": 32}
    first, again = (draw(sizes, np.random.default_rng(3))["image"] for _ in range(2))
    assert first.shape == (2, 3, 64, 32)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert np.allclose(first[:, 2], abs(first[:, 0] - first[:, 1]))
    assert 0 <= first.min() < first.max() <= 1


def test_the_metric_is_that_of_validation_images(smoke_run):
    from kits.defect.trained import load_run_network

    exportable = open_run(smoke_run)
    assert exportable.post[0]["score"] == min(LOWEST_SCORE, read_facts(smoke_run)["threshold"])
    assert exportable.float_weights == ("head.",)
    found = exportable.metric(load_run_network(smoke_run))
    assert found["map50"] == pytest.approx(read_facts(smoke_run)["validation"]["map50"], abs=0.02)


def test_frozen_images_stay_in_the_run(smoke_run, tmp_path):
    frozen = read_frozen(smoke_run)
    assert len(frozen) == 4
    assert frozen[0].dtype == np.uint8
    with pytest.raises(ValueError, match="train again"):
        read_frozen(tmp_path)
