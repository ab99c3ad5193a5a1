"""Commands for a Jetson: one golden list for each major version of TensorRT."""

import onnx
import onnx.parser
import pytest
import torch

from core.convert.source import Axis, Source
from core.convert.target import Options, find_converter
from edge.recipe import read_recipe

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch,3,32,32] image, float[batch,4] x) => (float[batch,4] y) <float s = {0.5}> {
    m = GlobalAveragePool(image)
    r = ReduceMean<axes = [1, 2, 3], keepdims = 0>(m)
    u = Unsqueeze(r, one)
    h = Mul(u, s)
    y = Add(x, h)
}"""
QUANTISED = """<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch,4] x) => (float[batch,4] y) <float s = {0.5}, int8 z = {0}> {
    q = QuantizeLinear(x, s, z)
    y = DequantizeLinear(q, s, z)
}"""
SHAPES = (
    "--minShapes=image:1x3x32x32,x:1x4",
    "--optShapes=image:5x3x32x32,x:5x4",
    "--maxShapes=image:8x3x32x32,x:8x4",
)
ARGV_10 = (
    "trtexec",
    "--onnx={stem}.onnx",
    "--saveEngine={output}/model.engine",
    "--fp16",
    "--timingCacheFile={output}/timing.cache",
    *SHAPES,
    "--skipInference",
)
ARGV_11 = (  # without precision flags, which TensorRT 11 removed
    "trtexec",
    "--onnx={stem}.float16.onnx",
    "--saveEngine={output}/model.engine",
    "--timingCacheFile={output}/timing.cache",
    *SHAPES,
    "--skipInference",
)


def build(folder, model=MODEL, source_changes=None, **options):
    batch = Axis("batch", 1, 8)
    fields = {
        "name": "tiny",
        "origin": "test",
        "module": None,
        "example": {"image": torch.zeros(1, 3, 32, 32), "x": torch.zeros(1, 4)},
        "output_names": ("y",),
        "axes": {"image": {0: batch}, "x": {0: batch}},
    }
    if model == QUANTISED:
        fields |= {"example": {"x": torch.zeros(1, 4)}, "axes": {"x": {0: batch}}}
    source = Source(**{**fields, **(source_changes or {})})
    (folder / "portable.onnx").write_bytes(parsed(model))
    artifact = find_converter("tensorrt").convert(
        source, folder / "portable.onnx", folder, "jetson-orin-trt", Options(**options)
    )
    builds = read_recipe(artifact.path)["builds"]
    return artifact, {entry["name"]: tuple(entry["argv"]) for entry in builds}


def parsed(text):
    model = onnx.parser.parse_model(text)
    if "Unsqueeze" in text:
        one = onnx.helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])
        model.graph.initializer.append(one)
    return model.SerializeToString()


def test_float16_is_a_flag_for_10_and_a_file_for_11(tmp_path):
    artifact, builds = build(tmp_path, precision="float16")
    assert builds == {"tensorrt-10": ARGV_10, "tensorrt-11": ARGV_11}
    half = onnx.load(tmp_path / "tiny.tensorrt.float16.onnx").graph
    kinds = {tensor.data_type for tensor in half.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    inputs = {value.type.tensor_type.elem_type for value in (*half.input, *half.output)}
    assert inputs == {onnx.TensorProto.FLOAT}
    assert "11 bits" in artifact.target.tolerance.reason
    requires = [entry["requires"] for entry in artifact.target.recipe["builds"]]
    assert [entry["JetPack"] for entry in requires] == [">=6.1,<7", ">=7.2.2"]


def test_float32_forbids_tf32(tmp_path):
    builds = build(tmp_path)[1]
    assert builds["tensorrt-10"] == tuple("--noTF32" if a == "--fp16" else a for a in ARGV_10)
    assert builds["tensorrt-11"] == builds["tensorrt-10"]


def test_int8_takes_quantised_models_only(tmp_path):
    from edge.target import Tolerance

    given = {"tolerance": Tolerance(0.1, 0.1, "a test")}
    builds = build(tmp_path, QUANTISED, precision="int8", values=given)[1]
    assert "--stronglyTyped" in builds["tensorrt-10"]
    assert not {"--int8", "--stronglyTyped"} & set(builds["tensorrt-11"])
    with pytest.raises(ValueError, match="needs a model with QuantizeLinear nodes"):
        build(tmp_path, precision="int8", values=given)


def test_a_core_for_deep_learning_falls_back_to_the_gpu(tmp_path):
    builds = build(tmp_path, precision="float16", values={"dla_core": 1})[1]
    for argv in builds.values():
        assert argv[-3:] == ("--useDLACore=1", "--allowGPUFallback", "--skipInference")
    with pytest.raises(ValueError, match="dla_core=2"):
        build(tmp_path, precision="float16", values={"dla_core": 2})
    with pytest.raises(ValueError, match="precision='float32'"):
        build(tmp_path, values={"dla_core": 0})


def test_a_model_of_fixed_sizes_has_no_profile(tmp_path):
    argv = build(tmp_path, source_changes={"axes": {}})[1]["tensorrt-10"]
    assert not [argument for argument in argv if "Shapes" in argument]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bfloat16"}, "precision='bfloat16' is not one of"),
        ({"device": "thor"}, "device='thor' is not one of orin"),
    ],
)
def test_what_orin_cannot_do_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **changes)


def test_names_that_trtexec_would_split_are_refused(tmp_path):
    changes = {
        "example": {"serving:0": torch.zeros(1, 4)},
        "axes": {"serving:0": {0: Axis("batch", 1, 8)}},
    }
    with pytest.raises(ValueError, match="'serving:0' has one of"):
        build(tmp_path, source_changes=changes)
