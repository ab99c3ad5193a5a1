"""Build bundles: what is in them, equal bytes for equal models, and never a latency."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.convert.build_bundle import read_model
from core.convert.source import Axis, Source
from core.convert.target import Options, converter_of
from edge import canonical
from edge.recipe import command_of, read_recipe, run_recipe
from edge.target import STATES_WITH_LATENCY, Target

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
tiny (float[batch,4] x) => (float[batch,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> {
    h = MatMul(x, w)
    y = Relu(h)
}"""
IDS = ("jetson-orin-trt", "ascend-310p-om", "ascend-910b-om")
SAMPLES = {"x": np.arange(40, dtype=np.float32).reshape(10, 4)}


def tiny(name="tiny", high=8):
    axes = {"x": {0: Axis("batch", 1, high)}} if high else {}
    content = onnx.parser.parse_model(MODEL).SerializeToString()
    return Source(name, "test", None, {"x": torch.zeros(1, 4)}, ("y",), axes, content)


def build(target_id, folder, source=None, **options):
    source = source or tiny()
    folder.mkdir(exist_ok=True)
    (folder.parent / "portable.onnx").write_bytes(source.onnx)
    return converter_of(target_id).convert(
        source, folder.parent / "portable.onnx", folder, target_id, Options(**options)
    )


@pytest.mark.parametrize("target_id", IDS)
def test_the_recipe_tells_everything_and_nothing_else_is_written(target_id, tmp_path):
    artifact = build(target_id, tmp_path / "out", calibration=SAMPLES)
    recipe = read_recipe(artifact.path)
    assert recipe["target"] == target_id
    assert recipe["state"] == artifact.target.state == "contract-only"
    assert recipe["model"]["opset"] == 17
    model = artifact.path.with_suffix("." + recipe["model"]["file"])
    assert recipe["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert recipe["inputs"] == [{"dtype": "float32", "name": "x", "shape": ["batch", 4]}]
    assert recipe["outputs"] == [{"dtype": "float32", "name": "y", "shape": ["batch", 2]}]
    assert recipe["axes"] == {"batch": {"high": 8, "low": 1, "multiple_of": 1}}
    assert recipe["unsupported"] == []
    assert recipe["key"]["model_sha256"] == recipe["model"]["sha256"]
    assert set(artifact.files) == {path.name for path in artifact.folder.iterdir()}
    parts = {artifact.path.with_suffix(f".{part}").name for part in recipe["files"]}
    assert parts == set(artifact.files) - {artifact.target.model}
    samples_file = artifact.path.with_suffix("." + recipe["calibration"]["file"])
    with np.load(samples_file, allow_pickle=False) as samples:
        np.testing.assert_array_equal(samples["x"], SAMPLES["x"])
    assert recipe["calibration"]["samples"] == 10
    assert converter_of(target_id).open(artifact) is None
    assert all(name.startswith("tiny.") for name in artifact.files)


@pytest.mark.parametrize("target_id", IDS)
def test_equal_models_give_equal_bytes_wherever_they_are_built(target_id, tmp_path):
    one = build(target_id, tmp_path / "one", calibration=SAMPLES)
    two = build(target_id, tmp_path / "two", calibration=SAMPLES)
    assert one.is_reproducible
    for name in one.files:
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    assert str(tmp_path).encode() not in one.path.read_bytes()


def test_all_files_may_be_renamed_together(tmp_path):
    artifact = build("jetson-orin-trt", tmp_path / "out", precision="float16")
    for name in artifact.files:
        (artifact.folder / name).rename(tmp_path / name.replace("tiny.tensorrt", "other name", 1))
    recipe = read_recipe(tmp_path / "other name.json")
    command = command_of(recipe["builds"][1], tmp_path / "other name.json", tmp_path)
    assert command[1] == f"--onnx={tmp_path}/other name.float16.onnx"


# A vendor's tool: refuses a missing model, writes what it was asked for.
TOOL = """#!{python}
import sys
from pathlib import Path
flags = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
Path(flags.get("--onnx") or flags["--model"]).read_bytes()
Path(flags.get("--saveEngine") or flags["--output"] + ".om").write_text(" ".join(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("target_id", "build_name"),
    [("jetson-orin-trt", "tensorrt-10"), ("jetson-orin-trt", "tensorrt-11"), (IDS[1], "cann")],
)
def test_the_recipe_can_be_carried_out(target_id, build_name, tmp_path, monkeypatch):
    artifact = build(target_id, tmp_path / "out", precision="float16")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("trtexec", "atc"):
        (tools / name).write_text(TOOL.format(python=sys.executable))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    facts = dict.fromkeys(artifact.target.recipe["key"]["device"], "some")
    engine = run_recipe(artifact.path, build_name, tmp_path / "engines", facts)
    said = engine.read_text()
    assert ("--fp16" in said) is (build_name == "tensorrt-10")
    (artifact.folder / artifact.files[1]).write_bytes(b"another model")
    with pytest.raises(ValueError, match="copy the bundle again"):
        run_recipe(artifact.path, build_name, tmp_path / "engines", facts)


def test_weights_beside_the_model_come_into_it(tmp_path):
    weights = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    model = onnx.parser.parse_model(MODEL.replace("<float[4,2] w = {1,2,3,4,5,6,7,8}>", ""))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    path = tmp_path / "portable.onnx"
    onnx.save(model, path, save_as_external_data=True, location="portable.bin")
    assert path.stat().st_size < 1000
    inside = onnx.load_from_string(read_model(path)).graph.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(inside), weights)


def test_a_target_with_its_recipe_survives_its_file(tmp_path):
    target = build("ascend-310p-om", tmp_path / "out").target
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


@pytest.mark.parametrize(
    ("calibration", "message"),
    [({"z": SAMPLES["x"]}, "are not the inputs"), ({"x": SAMPLES["x"][:7]}, "less than 8")],
)
def test_calibration_that_does_not_fit_is_refused(calibration, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build("jetson-orin-trt", tmp_path / "out", calibration=calibration)
    assert not list((tmp_path / "out").iterdir())


def words_of(value):
    if isinstance(value, dict):
        return {word for key, item in value.items() for word in {str(key)} | words_of(item)}
    if isinstance(value, list):
        return {word for item in value for word in words_of(item)}
    return {str(value)}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    target_id=st.sampled_from(IDS),
    precision=st.sampled_from(["float32", "float16"]),
    high=st.integers(0, 40),
    is_calibrated=st.booleans(),
    name=st.from_regex(r"net_[a-z0-9_]{0,8}", fullmatch=True),
)
def test_a_contract_only_target_never_tells_a_latency(
    target_id, precision, high, is_calibrated, name, tmp_path_factory
):
    artifact = build(
        target_id,
        tmp_path_factory.mktemp("any") / "out",
        tiny(name, high),
        precision=precision,
        calibration=SAMPLES if is_calibrated else None,
    )
    assert artifact.target.state not in STATES_WITH_LATENCY
    recipe = canonical.loads(artifact.path.read_bytes(), "recipe")
    told = words_of(recipe) | words_of(artifact.target.to_json()) | set(artifact.notes)
    for word in told:
        for banned in ("latency", "_ms", "throughput", "p50", "fps", "speed"):
            assert banned not in word.lower().replace(name, ""), word
    for entry in recipe["builds"]:  # every command of every recipe can be carried out
        command = command_of(entry, artifact.path, artifact.folder)
        assert command[0] in ("atc", "trtexec")
        assert Path(command[2 if command[0] == "atc" else 1].partition("=")[2]).is_file()
