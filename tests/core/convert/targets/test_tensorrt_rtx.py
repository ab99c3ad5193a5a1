"""Real engines, built without a card."""

import onnx
import onnx.parser
import pytest
import torch

from core.convert.source import Axis, Source
from core.convert.target import Options, find_converter
from core.convert.targets.tensorrt_rtx import DEFAULT_DEVICES, profile_shapes

pytest.importorskip("tensorrt_rtx", reason="needs pip install .[rtx]")
ID = "x86_64-trt-rtx"
MODEL = """<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch,4] x) => (float[batch,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> {
    h = MatMul(x, w)
    y = Relu(h)
}"""
UNSUPPORTED = """<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch,4] x) => (float[n] y) {
    z = Relu(x)
    [first] a = Unique(z)
    [second] y = Unique(a)
}"""


def source_of(model, **changes):
    fields = {
        "name": "tiny",
        "origin": "test",
        "module": None,
        "example": {"x": torch.zeros(1, 4)},
        "output_names": ("y",),
        "axes": {"x": {0: Axis("batch", 1, 8)}},
        "onnx": onnx.parser.parse_model(model).SerializeToString(),
    }
    return Source(**{**fields, **changes})


def build(folder, model=MODEL, options=None, **changes):
    source = source_of(model, **changes)
    path = folder / "portable.onnx"
    path.write_bytes(source.onnx)
    return find_converter("tensorrt_rtx").convert(source, path, folder, ID, options or Options())


def test_an_engine_is_built_without_a_card(tmp_path):
    artifact = build(tmp_path)
    engine = artifact.path.read_bytes()
    # 4 bytes of magic, then the length that the header says: 32 bytes less than the file's.
    assert engine[:4] == b"vtrt"
    assert len(engine) > 4000
    assert abs(int.from_bytes(engine[16:24], "little") - len(engine)) < 64
    assert artifact.path.name == "tiny.engine"
    assert artifact.files == ("tiny.engine",)
    assert artifact.target.state == "built"
    assert not artifact.is_reproducible
    assert all(device in artifact.target.accelerator for device in DEFAULT_DEVICES)
    assert "never run" in artifact.notes[0]
    assert find_converter("tensorrt_rtx").open(artifact) is None


def test_devices_are_chosen_and_checked(tmp_path):
    several = len(build(tmp_path).path.read_bytes())
    artifact = build(tmp_path, options=Options(device="sm_89"))
    assert artifact.target.accelerator == "NVIDIA RTX sm_89"
    assert artifact.path.stat().st_size <= several
    with pytest.raises(ValueError, match="device='sm_90' is not one of sm_75, sm_80"):
        build(tmp_path, options=Options(device="sm_90"))


def test_every_unsupported_node_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Unique \(first\), Unique \(second\)"):
        build(tmp_path, UNSUPPORTED)
    assert not list(tmp_path.glob("*.engine"))


def test_precision_is_never_changed_silently(tmp_path):
    with pytest.raises(ValueError, match="precision='float16' is not float32"):
        build(tmp_path, options=Options(precision="float16"))


def test_the_profile_spans_the_axes():
    image = {"x": {0: Axis("batch", 1, 8), 2: Axis("height", 32, 96, multiple_of=32)}}
    source = source_of(MODEL, example={"x": torch.zeros(1, 3, 32, 7)}, axes=image)
    assert profile_shapes(source) == {"x": ((1, 3, 32, 7), (5, 3, 64, 7), (8, 3, 96, 7))}
    fixed = {"x": {0: Axis("batch", 2, 2)}}
    assert profile_shapes(source_of(MODEL, axes=fixed)) == {"x": ((2, 4), (2, 4), (2, 4))}


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \.\[rtx\]"):
        build(tmp_path)
