from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from core.convert.parity import TOLERANCES, compare
from core.convert.targets import onnxruntime as target_module
from core.convert.targets.onnxruntime import optimise
from edge.runtimes import import_runtime
from edge.target import Tolerance
from tests.core.convert.targets.portable import build, parity_of, small_source

IDS = ("x86_64-ort-cpu", "aarch64-ort-cpu")


@pytest.mark.parametrize("target_id", IDS)
def test_the_optimised_model_is_fused_and_computes_the_same(tmp_path, target_id):
    source = small_source()
    converter, made = build(source, tmp_path / "a", "onnxruntime", target_id)
    nodes = onnx.load(str(made.path)).graph.node
    kinds = {node.op_type for node in nodes}
    assert {"FusedConv", "Gelu"} <= kinds
    assert not {"BatchNormalization", "Erf", "Identity"} & kinds
    # Blocked layouts fit the vectors of one machine.
    assert not [node for node in nodes if node.domain == "com.microsoft.nchwc"]
    parity = parity_of(source, converter, made)
    assert parity.passed, parity.problems
    assert parity.facts["provider"] == "CPUExecutionProvider"
    assert made.target.arch == target_id.partition("-")[0]


def test_states_say_what_was_tried(tmp_path):
    source = small_source()
    made = [build(source, tmp_path / id_, "onnxruntime", id_)[1] for id_ in IDS]
    assert [artifact.target.state for artifact in made] == ["verified", "emulated"]
    assert not made[0].notes
    assert "emulated" in made[1].notes[0]


def test_two_folders_give_equal_bytes_without_their_paths(tmp_path):
    source = small_source()
    found = [
        build(source, tmp_path / name, "onnxruntime", IDS[0])[1].path.read_bytes()
        for name in ("one", "another_folder")
    ]
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in found[0]


def test_another_precision_than_the_file_holds_is_refused(tmp_path):
    tolerance = Tolerance(0.1, 0.1, "quantised to 8 bits")
    values = {"tolerance": tolerance}
    converter, made = build(
        small_source(), tmp_path / "a", "onnxruntime", IDS[0], precision="int8", values=values
    )
    with pytest.raises(ValueError, match="holds float32"):
        converter.open(made)


def test_a_provider_that_is_not_there_is_not_replaced_by_another(tmp_path):
    converter, made = build(small_source(), tmp_path / "a", "onnxruntime", IDS[0])
    absent = replace(made.target, accelerator="cuda")
    with pytest.raises(ValueError, match="CUDAExecutionProvider"):
        converter.open(replace(made, target=absent))


def test_an_operator_the_runtime_lacks_is_named(tmp_path):
    source = small_source()
    model = onnx.load_from_string(source.onnx)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Fold"
    with pytest.raises(ValueError, match=r"ONNX Runtime does not load the model: .*Fold"):
        build(
            replace(source, onnx=model.SerializeToString()), tmp_path / "a", "onnxruntime", IDS[0]
        )


def test_operators_of_one_machine_are_refused(tmp_path, monkeypatch):
    source = small_source()
    monkeypatch.setattr(target_module, "HARDWARE_BOUND", "com.microsoft")
    with pytest.raises(ValueError, match="FusedConv, Gelu"):
        build(source, tmp_path / "a", "onnxruntime", IDS[0])


def test_weights_of_a_large_model_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(target_module, "MAX_BYTES_OF_ONE_FILE", 0)
    converter, made = build(small_source(), tmp_path / "a", "onnxruntime", IDS[0])
    assert made.files == ("small.ort.onnx", "small.ort.onnx.data")
    assert parity_of(small_source(), converter, made).passed


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """The small model quantised with signed integers."""
    import_runtime("onnxruntime")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    folder = tmp_path_factory.mktemp("int8")
    (folder / "float.onnx").write_bytes(small_source().onnx)
    rng = np.random.default_rng(1)
    samples = iter([{"image": rng.standard_normal((4, 3, 8, 8), np.float32)} for _ in range(4)])
    quantize_static(
        str(folder / "float.onnx"),
        str(folder / "int8.onnx"),
        SimpleNamespace(get_next=lambda: next(samples, None)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    return (folder / "int8.onnx").read_bytes()


@pytest.mark.parametrize(
    ("name", "target_id"), [*(("onnxruntime", id_) for id_ in IDS), ("onnx", "portable-onnx")]
)
def test_a_quantised_model_is_held_to_the_declared_tolerance(tmp_path, int8, name, target_id):
    source = small_source()
    wide = Tolerance(0.5, 0.2, "quantised to 8 bits")
    converter, made = build(
        replace(source, onnx=int8),
        tmp_path / "a",
        name,
        target_id,
        precision="int8",
        values={"tolerance": wide},
    )
    assert made.target.tolerance == wide
    parity = parity_of(source, converter, made)
    assert parity.facts["precision"] == "int8"
    logits = [case.outputs[0] for case in parity.cases]
    assert all(output.passed for output in logits)
    assert max(output.max_absolute for output in logits) > 1e-3
    assert not compare(source, converter.open(made), TOLERANCES["float32"]).passed


def test_a_quantised_model_keeps_its_signed_integers_for_arm(tmp_path, int8):
    (tmp_path / "int8.onnx").write_bytes(int8)
    kinds = []
    for is_arm in (False, True):
        path = tmp_path / f"{is_arm}.onnx"
        optimise(tmp_path / "int8.onnx", path, is_arm=is_arm)
        types = {value.data_type for value in onnx.load(str(path)).graph.initializer}
        kinds.append(types & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
    assert kinds[1] == {onnx.TensorProto.INT8}
    assert onnx.TensorProto.UINT8 in kinds[0]
