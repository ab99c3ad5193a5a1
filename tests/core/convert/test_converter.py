import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from core.convert.__main__ import main
from core.convert.converter import ConversionError, ModelConverter, convert_source
from core.convert.load import load_source
from core.convert.target import Options, find_converter


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """An ONNX file of one matrix product: the quickest input there is."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    weight = onnx.numpy_helper.from_array(np.full((3, 2), 0.5, np.float32), "w")
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, ["batch", 3])],
        [onnx.helper.make_tensor_value_info("y", kind, ["batch", 2])],
        [weight],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


class WrongRunner:
    def __init__(self, runner):
        self.runner = runner
        self.facts = runner.facts

    def run(self, inputs):
        return {name: value + 1 for name, value in self.runner.run(inputs).items()}


class WrongConverter:
    """Writes a fine file and computes something else with it."""

    def __init__(self):
        right = find_converter("onnx")
        self.name, self.suffix, self.ids = right.name, right.suffix, right.ids
        self.convert = right.convert
        self.open = lambda artifact: WrongRunner(right.open(artifact))


def test_a_conversion_that_differs_leaves_reports_but_no_artifact(tmp_path, model_file):
    output = tmp_path / "tiny.onnx"
    with pytest.raises(
        ConversionError, match="does not compute what the source computes: at batch"
    ):
        convert_source(load_source(model_file), WrongConverter(), output, Options())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["tiny.onnx.parity.html", "tiny.onnx.parity.json"]
    assert json.loads((tmp_path / "tiny.onnx.parity.json").read_text())["passed"] is False


def test_a_failed_conversion_leaves_the_one_of_before(tmp_path, model_file):
    output = tmp_path / "tiny.onnx"
    output.write_bytes(b"of before")
    with pytest.raises(ConversionError):
        convert_source(load_source(model_file), WrongConverter(), output, Options())
    assert output.read_bytes() == b"of before"


def test_the_command_converts_to_several_targets_and_says_what_it_did(tmp_path, model_file, capsys):
    arguments = ["--to", "onnxruntime", "--to", "openvino", "--output", str(tmp_path / "out")]
    assert main([str(model_file), *arguments]) == 0
    printed = capsys.readouterr().out
    for word in ("x86_64-ort-cpu", "x86_64-openvino-cpu", "verified", "pass", "given"):
        assert word in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tiny.ort.onnx", "tiny.xml", "tiny.bin", "tiny.xml.parity.json"} <= names
    assert not any(name.startswith(".") for name in names)


def test_the_command_fails_with_one_line(tmp_path, model_file, capsys):
    assert main([str(model_file), "--to", "onnx"]) == 1
    assert "is the input itself; pass another one" in capsys.readouterr().err
    assert main([str(tmp_path / "none.pt"), "--to", "onnx"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("does not exist; check the path")
    assert main([str(model_file), "--to", "onyx"]) == 1
    assert "--to=onyx is not one of aoti," in capsys.readouterr().err
    assert main([str(model_file), "--to", "onnx", "--example", "3xx"]) == 1
    assert "--example=3xx is no shape" in capsys.readouterr().err


def test_an_output_of_several_files_keeps_the_names_they_are_found_by(tmp_path, model_file):
    converter = ModelConverter(model_file, "openvino", tmp_path / "other.xml")
    assert converter.convert().artifact.files == ("other.xml", "other.bin")
    with pytest.raises(ValueError, match=r"output_path='other\.ir' must end with '\.xml'"):
        ModelConverter(model_file, "openvino", tmp_path / "other.ir").convert()
    assert not (tmp_path / "other.ir").exists()


def test_a_source_without_a_free_axis_is_compared_too(tmp_path, model_file):
    source = replace(load_source(model_file), axes={})
    done = convert_source(source, find_converter("onnx"), tmp_path / "fixed.onnx", Options())
    assert len(done.parity.cases) >= 5


def test_help_answers_without_torch():
    code = (
        "import sys, core.convert.__main__ as command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("device", "id_"),
    [("Ascend910B3", "ascend-910b-om"), ("310p", "ascend-310p-om"), ("", "ascend-310p-om")],
)
def test_a_device_by_its_full_name_or_a_part_of_it_chooses_the_target(
    model_file, tmp_path, device, id_
):
    source = load_source(model_file)
    options = Options(device=device) if device else Options()
    made = convert_source(source, find_converter("ascend"), tmp_path / "out.ascend.json", options)
    assert made.artifact.target.id == id_
