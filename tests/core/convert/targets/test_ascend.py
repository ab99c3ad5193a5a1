"""Recipes for Ascend's model compiler: its command, its image unit, and what it does not take."""

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from torch import nn

from core.convert.ascend_aipp import aipp_config
from core.convert.ascend_coverage import find_unsupported, operator_table
from core.convert.export import export_onnx
from core.convert.source import Axis, Source
from core.convert.target import Options, find_converter
from core.convert.targets.ascend import shape_arguments
from edge.recipe import read_recipe

BATCH = Axis("batch", 1, 8)
IMAGE = """<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch,3,32,48] image) => (float[batch,3,1,1] y) {
    h = Relu(image)
    y = GlobalAveragePool(h)
}"""
MIXED = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
tiny (float[2,4] x) => (float[n] y, float[2,4] z) {
    [hann] a = HannWindow(size)
    [first] b = Unique(x)
    [second] y = Unique(b)
    g = com.microsoft.Gelu(x)
    z = Relu(g)
}"""
ARGV = (
    "atc",
    "--framework=5",
    "--model={stem}.onnx",
    "--output={output}/model",
    "--soc_version=Ascend310P3",
    "--input_format=NCHW",
    "--input_shape=image:-1,3,32,48",
    "--dynamic_batch_size=1,5,8",
    "--precision_mode_v2=fp16",
    "--output_type=FP32",
    "--insert_op_conf={stem}.aipp.cfg",
    "--log=error",
)
AIPP = """aipp_op {
    aipp_mode: static
    related_input_rank: 0
    input_format: RGB888_U8
    src_image_size_w: 48
    src_image_size_h: 32
    crop: false
    csc_switch: false
    rbuv_swap_switch: true
    mean_chn_0: 123
    min_chn_0: 0.675
    var_reci_chn_0: 0.01712
    mean_chn_1: 116
    min_chn_1: 0.28
    var_reci_chn_1: 0.0175
    mean_chn_2: 103
    min_chn_2: 0.53
    var_reci_chn_2: 0.01743
}
"""
# What ImageNet's networks subtract and divide by, in steps of 0-255.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def source_of(model=IMAGE, **changes):
    fields = {
        "name": "tiny",
        "origin": "test",
        "module": None,
        "example": {"image": torch.zeros(1, 3, 32, 48)},
        "output_names": ("y",),
        "axes": {"image": {0: BATCH}},
        "onnx": onnx.parser.parse_model(model).SerializeToString(),
    }
    return Source(**{**fields, **changes})


def build(folder, source, target_id="ascend-310p-om", **options):
    (folder / "portable.onnx").write_bytes(source.onnx)
    return find_converter("ascend").convert(
        source, folder / "portable.onnx", folder, target_id, Options(**options)
    )


def test_an_image_model_has_the_golden_command_and_image_unit(tmp_path):
    aipp = {"image": {"mean": MEAN, "std": STD, "swap_red_and_blue": True}}
    artifact = build(tmp_path, source_of(), precision="float16", values={"aipp": aipp})
    recipe = read_recipe(artifact.path)
    (entry,) = recipe["builds"]
    assert tuple(entry["argv"]) == ARGV
    assert entry["artifacts"][0] == "model.om"
    assert (tmp_path / "tiny.ascend.aipp.cfg").read_text() == AIPP
    assert recipe["aipp"] == {"image": {"dtype": "uint8", "layout": "NHWC"}}
    assert recipe["operators"]["published"]["retrieved"] == "2026-11-23"
    assert any("every operator is in the list" in note for note in artifact.notes)


def test_the_image_unit_computes_what_the_pipeline_computes():
    values = dict(
        line.strip().split(": ") for line in AIPP.splitlines() if ": " in line and "chn" in line
    )
    pixels = np.arange(256)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        whole, rest, factor = (
            float(values[f"{key}_chn_{channel}"]) for key in ("mean", "min", "var_reci")
        )
        # float16 keeps 11 bits of 1/std: 0.05 % of values up to 2.7.
        np.testing.assert_allclose(
            (pixels - whole - rest) * factor, (pixels - mean) / std, atol=2e-3
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": {"mean": [0.5] * 2}}, "mean has 2 values for 3 channels"),
        ({"image": {"mean": [-1, 0, 0]}}, "mean=-1"),
        ({"image": {"std": [1, 0, 1]}}, "std=0"),
        ({"image": {"format": "YUV400_U8"}}, "channels=3, YUV400_U8 needs 1 to 1"),
        ({"image": {"format": "NV12"}}, "'NV12' is not one of"),
        ({"image": {"scale": 2}}, r"has \['scale'\]"),
        ({"photo": {}}, "'photo' is not one of image"),
    ],
)
def test_settings_the_image_unit_cannot_do_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        aipp_config(source_of(), settings)


def test_only_float_images_of_one_size_go_through_the_image_unit():
    for changes in (
        {"axes": {"image": {2: Axis("height", 32, 64)}}},
        {"example": {"image": torch.zeros(1, 3)}},
        {"example": {"image": torch.zeros(1, 3, 32, 48, dtype=torch.uint8)}},
    ):
        with pytest.raises(ValueError, match="needs a float input"):
            aipp_config(source_of(**changes), {"image": {}})


def table_row(length):
    return torch.zeros(1, length)


@pytest.mark.parametrize(
    ("changes", "values", "wanted"),
    [
        (  # nothing free
            {"axes": {}},
            {},
            ["--input_format=NCHW", "--input_shape=image:1,3,32,48"],
        ),
        (  # one size asked for is no free axis
            {},
            {"sizes": {"batch": [4]}},
            ["--input_format=NCHW", "--input_shape=image:4,3,32,48"],
        ),
        (  # a batch of rows is told by dimension
            {"example": {"x": table_row(4)}, "axes": {"x": {0: BATCH}}},
            {},
            ["--input_format=ND", "--input_shape=x:-1,4", "--dynamic_dims=1;5;8"],
        ),
        (  # every combination, in the order of the free dimensions of all inputs
            {
                "example": {
                    "x": torch.zeros(1, 5, 4),
                    "mask": torch.zeros(1, 5),
                    "s": torch.ones(()),
                },
                "axes": {
                    "x": {0: BATCH, 1: Axis("time", 1, 9)},
                    "mask": {0: BATCH, 1: Axis("time", 1, 9)},
                },
            },
            {"sizes": {"batch": [1, 2], "time": [8, 9]}},
            [
                "--input_format=ND",
                "--input_shape=x:-1,-1,4;mask:-1,-1;s:",
                "--dynamic_dims=1,8,1,8;1,9,1,9;2,8,2,8;2,9,2,9",
            ],
        ),
        (  # volumes
            {
                "example": {"scan": torch.zeros(1, 1, 8, 8, 8)},
                "axes": {"scan": {0: Axis("batch", 1, 2)}},
            },
            {},
            [
                "--input_format=NCDHW",
                "--input_shape=scan:-1,1,8,8,8",
                "--dynamic_batch_size=1,2",
            ],
        ),
    ],
)
def test_sizes_are_told_as_the_compiler_wants_them(changes, values, wanted):
    assert shape_arguments(source_of(**changes), Options(values=values)) == wanted


def test_sizes_the_compiler_cannot_be_told_are_refused():
    height = {"axes": {"image": {2: Axis("height", 32, 64)}}}
    with pytest.raises(ValueError, match="axes=height are free; with AIPP"):
        shape_arguments(source_of(**height), Options(values={"aipp": {"image": {}}}))
    with pytest.raises(ValueError, match="sizes=101 combinations"):
        shape_arguments(source_of(), Options(values={"sizes": {"batch": range(1, 102)}}))
    with pytest.raises(ValueError, match="'a:0' has one of"):
        shape_arguments(source_of(example={"a:0": table_row(3)}, axes={}), Options())


def test_unsupported_nodes_are_named_and_raise_only_if_asked(tmp_path):
    source = source_of(MIXED, example={"x": torch.zeros(2, 4)}, axes={})
    artifact = build(tmp_path, source)
    assert artifact.target.state == "contract-only"
    unsupported = {entry["operator"]: entry for entry in artifact.target.recipe["unsupported"]}
    assert unsupported["HannWindow"]["nodes"] == ["hann"]
    assert unsupported["HannWindow"]["reason"] == "not in the published list"
    assert unsupported["Unique"]["count"] == 2
    assert unsupported["Unique"]["nodes"] == ["first", "second"]
    assert "has a parser" in unsupported["Unique"]["reason"]
    assert unsupported["com.microsoft::Gelu"]["nodes"] == ["g"]
    assert set(unsupported) == {"HannWindow", "Unique", "com.microsoft::Gelu"}
    assert any("Unique x2 (first, second)" in note for note in artifact.notes)
    with pytest.raises(ValueError, match=r"Unique x2 \(first, second\)"):
        build(tmp_path, source, values={"strict": True})
    build(tmp_path, source_of(), values={"strict": True})


def test_an_operator_is_looked_up_at_the_opset_of_the_model():
    text = '<ir_version: 8, opset_import: ["" : {}]> g (float[2] x) => (float[2] y) {{ y = {}(x) }}'
    for opset, operator, is_known in (
        (13, "HardSwish", False),  # a function of 14
        (14, "HardSwish", True),
        (17, "LayerNormalization", True),
        (17, "Constant", True),  # listed; read by the compiler itself, without a plugin
        (17, "QuantizeLinear", False),
    ):
        model = onnx.parser.parse_model(text.format(opset, operator))
        assert (not find_unsupported(model)) is is_known, (opset, operator)


def test_nodes_inside_branches_are_found():
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Loop", ["n"], ["b"], name="inside")], "then", [], []
    )
    branch = onnx.helper.make_node("If", ["c"], ["b"], then_branch=inner, else_branch=inner)
    graph = onnx.helper.make_graph([branch], "g", [], [])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    (found,) = find_unsupported(model)
    assert (found.operator, found.nodes) == ("Loop", ("inside", "inside"))


def test_the_table_says_where_and_when_it_is_from():
    table = operator_table()
    assert len(table["operators"]) == 160
    assert table["published"]["source"].startswith("https://www.hiascend.com/")
    assert all(len(text) == 40 + 11 for text in table["registered"]["sources"].values())
    for ranges in (*table["operators"].values(), *table["unlisted"].values()):
        assert not ranges or all(part.replace("-", "").isdigit() for part in ranges.split(","))
    assert not set(table["operators"]) & set(table["unlisted"])


def test_a_model_of_a_newer_opset_is_converted_and_compared(tmp_path):
    torch.manual_seed(0)
    source = source_of(
        module=nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(),
        example={"x": torch.randn(1, 4)},
        axes={"x": {0: BATCH}},
        onnx=None,
    )
    portable = tmp_path / "portable.onnx"
    export_onnx(source, portable, opset=18)
    artifact = find_converter("ascend").convert(
        source, portable, tmp_path, "ascend-310p-om", Options()
    )
    model = onnx.load(tmp_path / "tiny.ascend.onnx")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
    assert artifact.target.recipe["inputs"][0]["shape"] == ["batch", 4]


def test_a_model_that_cannot_be_had_at_an_older_opset_says_why(tmp_path):
    gelu = """<ir_version: 10, opset_import: ["" : 20]>
    tiny (float[batch,4] x) => (float[batch,4] y) { y = Gelu(x) }"""
    source = source_of(gelu, example={"x": torch.zeros(1, 4)}, axes={"x": {0: BATCH}})
    with pytest.raises(ValueError, match=r"at opset 17: converted: .*; exported anew: "):
        build(tmp_path, source)
    assert not list(tmp_path.glob("*.ascend.*"))


@pytest.mark.parametrize(
    ("target_id", "options", "message"),
    [
        ("ascend-310p-om", {"device": "Ascend910B3"}, "is no chip of ascend-310p-om"),
        ("ascend-910b-om", {"precision": "int8"}, "has no QuantizeLinear"),
        ("ascend-other", {}, "is not one of ascend-310p-om, ascend-910b-om"),
    ],
)
def test_what_the_chips_cannot_do_is_refused(target_id, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, source_of(), target_id, **options)


def test_a_quantised_model_is_refused(tmp_path):
    quantised = """<ir_version: 8, opset_import: ["" : 17]>
    tiny (float[4] x) => (float[4] y) <float s = {0.5}, int8 z = {0}> {
        q = QuantizeLinear(x, s, z)
        y = DequantizeLinear(q, s, z)
    }"""
    with pytest.raises(ValueError, match="compress=none"):
        build(tmp_path, source_of(quantised, example={"x": torch.zeros(4)}, axes={}))


def test_the_chip_is_the_asked_one(tmp_path):
    artifact = build(tmp_path, source_of(), "ascend-910b-om", device="Ascend910B2")
    assert "--soc_version=Ascend910B2" in artifact.target.recipe["builds"][0]["argv"]
    family = build(tmp_path, source_of(), "ascend-910b-om", device="910b")
    assert family.target.accelerator == "Ascend910B3"
    assert "--precision_mode_v2=origin" in artifact.target.recipe["builds"][0]["argv"]
