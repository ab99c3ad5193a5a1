import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from core.convert.target import Options, converter_of, find_converter
from tests.core.convert.targets.portable import build, parity_of, small_source


def test_the_portable_model_is_copied_and_compares_equal(tmp_path):
    source = small_source()
    converter, made = build(source, tmp_path / "a", "onnx", "portable-onnx")
    assert made.path.name == "small.onnx"
    assert made.path.read_bytes() == source.onnx
    parity = parity_of(source, converter, made)
    assert parity.passed, parity.problems
    assert parity.facts["provider"] == "CPUExecutionProvider"
    assert parity.facts["precision"] == "float32"
    assert len(parity.cases) == 7
    assert made.target.arch == "any"


def test_weights_beside_the_model_travel_with_it(tmp_path):
    source = small_source()
    model = onnx.load_from_string(source.onnx)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    (tmp_path / "out").mkdir()
    onnx.save(model, tmp_path / "portable.onnx")
    converter = find_converter("onnx")
    made = converter.convert(
        source, tmp_path / "portable.onnx", tmp_path / "out", "portable-onnx", Options()
    )
    assert made.files == ("small.onnx", "weights.bin")
    assert parity_of(source, converter, made).passed


def test_a_frozen_axis_is_found(tmp_path):
    source = small_source()
    model = onnx.load_from_string(source.onnx)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    converter, made = build(source, tmp_path / "a", "onnx", "portable-onnx")
    made.path.write_bytes(model.SerializeToString())
    parity = parity_of(source, converter, made)
    assert not parity.passed
    assert {case.case.sizes["batch"] for case in parity.cases if case.passed} == {1}
    assert any("batch=6" in problem for problem in parity.problems)


def test_a_changed_weight_is_found(tmp_path):
    source = small_source()
    converter, made = build(source, tmp_path / "a", "onnx", "portable-onnx")
    model = onnx.load_from_string(source.onnx)
    weight = next(value for value in model.graph.initializer if value.name == "scale")
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "scale"))
    made.path.write_bytes(model.SerializeToString())
    assert not parity_of(source, converter, made).passed


def test_ids_lead_to_their_converter():
    assert converter_of("portable-onnx").name == "onnx"
    with pytest.raises(ValueError, match="is not one of"):
        converter_of("x86_64-abacus")
