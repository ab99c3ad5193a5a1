import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.keys import new_key
from kits.defect.line.detect import found_in
from kits.defect.line.detector_file import DetectorFile, Given, find_detector
from tests.kits.defect.line.lines import save_bundle, save_onnx


def save_shaped(path, shape, dtype=TensorProto.FLOAT, outputs=("boxes", "scores")):
    nodes = [helper.make_node("Identity", ["image"], [name]) for name in outputs]
    ends = [helper.make_tensor_value_info(name, dtype, shape) for name in ("image", *outputs)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
    return path


def test_an_onnx_file_says_what_it_takes_and_its_classes_have_numbers(tmp_path):
    file = DetectorFile.open(save_onnx(tmp_path / "a.onnx"))
    assert file.given == Given("image", "float32", 1, None)
    assert file.name(3) == "class 3"
    assert file.threshold(3) == 0.25
    assert file.key == f"detector@{file.sha256[:12]}"
    fixed = DetectorFile.open(save_onnx(tmp_path / "b.onnx", fixed_px=320))
    assert fixed.given.side_px == 320


def test_a_bundle_names_its_classes_and_their_least_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPKITS_HOME", str(tmp_path))
    path = save_bundle(tmp_path / "a.ebundle", new_key(tmp_path))
    file = DetectorFile.open(path)
    assert [file.name(0), file.name(1)] == ["scratch", "burr"]
    assert [file.threshold(0), file.threshold(1)] == [0.4, 0.5]
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"a\.ebundle"):
        DetectorFile.open(path)


@pytest.mark.parametrize(
    ("shape", "settings", "words"),
    [
        (["n", 1, 320], {}, "a detector takes"),
        (["n", 1, 8, 8], {"outputs": ("boxes", "labels")}, "gives boxes, labels"),
        (["n", 1, 320, 640], {}, "the sides equal or both open"),
        (["n", 1, 320, "w"], {}, "the sides equal or both open"),
        (["n", "c", 8, 8], {}, "the planes must be a number"),
        (["n", 1, 8, 8], {"dtype": TensorProto.INT64}, "takes int64, not one of uint8"),
    ],
)
def test_what_is_no_detector_is_refused(tmp_path, shape, settings, words):
    with pytest.raises(ValueError, match=words):
        DetectorFile.open(save_shaped(tmp_path / "x.onnx", shape, **settings))


def test_tiles_become_what_the_model_takes():
    tile = np.full((1, 200, 210), 255, np.uint8)
    assert Given("x", "float32", 1, None).batch([tile]).shape == (1, 1, 224, 224)
    assert Given("x", "float32", 1, 320).batch([tile, tile]).shape == (2, 1, 320, 320)
    array = Given("x", "float32", 3, None).batch([tile - 255, tile], 256)
    assert array.shape == (2, 3, 256, 256)
    assert array.dtype == np.float32
    assert array[1, 2, 199, 209] == 1.0
    assert array[0].max() == array[1, 0, 200:].max() == 0
    raw = Given("x", "uint8", 1, None).batch([tile[:, :192, :192]])
    assert raw.dtype == np.uint8
    assert raw.shape == (1, 1, 192, 192)


def test_boxes_are_in_pixels_of_the_frame_and_cut_at_the_tile(tmp_path):
    file = DetectorFile.open(save_onnx(tmp_path / "a.onnx"))
    boxes = np.array([[[-5, 10, 30, 40], [5, 5, 6, 6], [0, 0, 0, 0]]], np.float32)
    outputs = {
        "boxes": boxes,
        "scores": np.array([[0.9, 0.1, 0.0]], np.float32),
        "classes": np.array([[1, 0, -1]]),
    }
    (found,) = found_in(outputs, file, [(100, 200, 128, 232)])
    assert found.box_px == (100, 210, 128, 232)
    assert (found.kind, found.tile_px) == (1, (100, 200, 128, 232))


def test_a_models_own_scores_are_suppressed(tmp_path):
    file = DetectorFile.open(save_onnx(tmp_path / "a.onnx"))
    boxes = np.array([[[0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50]]], np.float32)
    scores = np.array([[[0.5, 0], [0.8, 0], [0, 0.7]]], np.float32)
    found = found_in({"boxes": boxes, "scores": scores}, file, [(0, 0, 64, 64)])
    assert [(one.kind, round(one.score, 3)) for one in found] == [(0, 0.8), (1, 0.7)]


def test_a_run_stands_for_its_bundle(tmp_path):
    (tmp_path / "run" / "export").mkdir(parents=True)
    with pytest.raises(ValueError, match="has 0 bundles"):
        find_detector(tmp_path / "run")
    bundle = tmp_path / "run" / "export" / "defect.ebundle"
    bundle.write_bytes(b"x")
    assert find_detector(tmp_path / "run") == bundle
    assert find_detector(bundle) == bundle
