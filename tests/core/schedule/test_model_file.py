import hashlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from core.schedule.kept import PREFIX, Kept
from core.schedule.model_file import hash_model, open_model
from core.schedule.trial import describe
from edge.backends.onnxruntime import OrtBackend
from edge.onnx_file import onnx_signature


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(path, nodes, inputs, outputs, weights=(), **options):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), **options)
    return path


def copying(path, input_shape, output_shape, dtype=TensorProto.FLOAT):
    """A model that gives back what it gets."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(path, nodes, [value("x", input_shape, dtype)], [value("y", output_shape, dtype)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.onnx"


@pytest.mark.parametrize(
    ("given", "declared", "found"),
    [
        (["n", 3], ["n", 3], (("n", 3), ("n", 3))),
        # Without names, or with another one where it is the same axis.
        ([None, 3], [None, 3], (("batch", 3), ("batch", 3))),
        (["n", 3], ["y_dim_0", 3], (("n", 3), ("n", 3))),
        (["n", None, None], None, (("n", "x_1", "x_2"), ("n", 8, 8))),
        ([4, 3], [4, 3], ((4, 3), (4, 3))),
        ([], [], ((), ())),
    ],
)
def test_an_onnx_file_tells_its_inputs_and_what_it_does_not_tell_is_seen(
    path, given, declared, found
):
    pipeline = open_model(copying(path, given, declared), "")
    assert (pipeline.inputs[0].shape, pipeline.outputs[0].shape) == found
    assert (pipeline.inputs[0].name, pipeline.outputs[0].dtype) == ("x", "float32")
    assert (pipeline.pre, pipeline.post) == ((), ())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_predicts_with_the_runtime_that_is_asked_for(path, runtime):
    pipeline = open_model(copying(path, ["n", 3], ["n", 3]), "", runtime)
    assert pipeline.backend.facts.backend == runtime
    sample = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(pipeline.predict({"x": sample})["y"], sample)
    with pytest.raises(ValueError, match="input 'x' has dtype=float64"):
        pipeline.predict({"x": sample.astype(np.float64)})


@pytest.mark.parametrize(
    "dtype", ["BOOL", "INT8", "UINT8", "INT32", "INT64", "FLOAT16", "DOUBLE", "UINT16"]
)
def test_types_at_the_ends_are_numpys(path, dtype):
    pipeline = open_model(copying(path, ["n"], ["n"], getattr(TensorProto, dtype)), "")
    wanted = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, dtype)).name
    assert pipeline.inputs[0].dtype == pipeline.outputs[0].dtype == wanted


def test_texts_and_sequences_at_the_ends_are_refused_in_words(path):
    with pytest.raises(ValueError, match="'x' holds texts"):
        open_model(copying(path, ["n"], ["n"], TensorProto.STRING), "")
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["y"])]
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n"])
    with pytest.raises(ValueError, match=r"'y' is a sequence, map or .* zipmap"):
        open_model(save(path, nodes, [value("x", ["n"])], [sequence]), "")


def test_another_file_than_meant_is_refused(path, tmp_path):
    copying(path, ["n"], ["n"])
    assert hash_model(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert open_model(path, hash_model(path))
    with pytest.raises(ValueError, match=r"m\.onnx has sha256 .* changed meanwhile"):
        open_model(path, "0" * 64)
    with pytest.raises(ValueError, match="does not exist"):
        open_model(tmp_path / "none.onnx", "")
    with pytest.raises(ValueError, match="is no regular file"):
        open_model(folder(tmp_path / "folder.onnx"), "")
    with pytest.raises(ValueError, match=r"neither an \.onnx nor an \.ebundle file"):
        open_model(tmp_path / "model.pt", "")
    with pytest.raises(ValueError, match="target='abacus' is not one of auto, onnxruntime"):
        open_model(path, "", "abacus")
    path.write_bytes(b"\x08\x08 nonsense")
    with pytest.raises(ValueError, match="not an ONNX file"):
        open_model(path, "")


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), end=st.integers(1, 10_000))
def test_a_damaged_file_has_a_signature_or_is_refused(at, byte, end):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 3])], [value("y", ["n", 3])])
    data = bytearray(helper.make_model(graph).SerializeToString())
    data[at % len(data)] = byte
    try:
        inputs, outputs = onnx_signature(bytes(data[: 1 + end % len(data)]))
    except ValueError:
        return
    for found in (*inputs, *outputs):
        assert isinstance(found.name, str)
        assert all(isinstance(axis, int | str) for axis in found.shape or ())


def folder(path):
    path.mkdir()
    return path


def with_outside_weights(path, name="w.bin"):
    weights = numpy_helper.from_array(np.full((3, 600), 2.0, np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [value("x", ["n", 3])], [value("y", ["n", 600])]
    options = {"save_as_external_data": True, "location": name, "size_threshold": 0}
    return save(path, nodes, *ends, [weights], **options)


def test_weights_beside_the_file_are_hashed_and_read_with_it(path, tmp_path):
    with_outside_weights(path)
    before = hash_model(path)
    pipeline = open_model(path, before)
    assert pipeline.predict({"x": np.ones((1, 3), np.float32)})["y"][0, 0] == 6.0
    beside = tmp_path / "w.bin"
    beside.write_bytes(np.full((3, 600), 3.0, np.float32).tobytes())
    assert hash_model(path) != before
    with pytest.raises(ValueError, match="changed meanwhile"):
        open_model(path, before)


def test_weights_elsewhere_than_beside_the_file_are_not_read(path, tmp_path):
    with_outside_weights(path)
    (tmp_path / "outside").write_bytes((tmp_path / "w.bin").read_bytes())
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../outside"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"weights in '\.\./outside'; only a file beside it"):
        open_model(path, "")


@pytest.mark.parametrize(
    ("nodes", "given", "declared", "word"),
    [
        ([("Identity", ["x"], ["y"], {})], ["n", 3], ["n", 3], ""),
        ([("Identity", ["x"], ["y"], {})], [2, 3], [2, 3], "no open first axis in common"),
        ([("ReduceSum", ["x"], ["y"], {"keepdims": 0})], ["n", 3], [], "no open first axis"),
        ([("Transpose", ["x"], ["y"], {})], ["n", "m"], ["m", "n"], "not one row for each row"),
        ([("Softmax", ["x"], ["y"], {"axis": 0})], ["n", 3], ["n", 3], "depends on the other rows"),
        ([("CumSum", ["x", "zero"], ["y"], {})], ["n", 3], ["n", 3], "depends on the other rows"),
        ([("Reshape", ["x", "one"], ["y"], {})], ["n", 3], ["n", 3], "does not take several rows"),
    ],
)
def test_rows_of_others_are_joined_only_where_that_was_tried(path, nodes, given, declared, word):
    weights = [
        numpy_helper.from_array(np.array(0), "zero"),
        numpy_helper.from_array(np.array([1, 3]), "one"),
    ]
    made = [helper.make_node(op, *names, **more) for op, *names, more in nodes]
    used = {name for _, names, *_ in nodes for name in names}
    weights = [weight for weight in weights if weight.name in used]
    model = save(path, made, [value("x", given)], [value("y", declared)], weights)
    told = describe(open_model(model, ""), 8)
    assert word in told["obstacle"]
    assert (told["max_batch"], bool(told["obstacle"])) == ((1, True) if word else (8, False))
    assert [rows for rows, _ in told["seconds"]][:1] == [1]


def test_a_model_that_takes_some_numbers_badly_is_tried_with_others(path):
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    model = save(path, nodes, [value("x", ["n"])], [value("y", ["n"])])
    assert open_model(model, "").outputs[0].shape == ("n",)
    none = numpy_helper.from_array(np.zeros(1, np.float32), "none")
    nodes = [helper.make_node("Div", ["x", "none"], ["y"])]
    model = save(path, nodes, [value("x", ["n"])], [value("y", ["n"])], [none])
    with pytest.raises(ValueError, match=r"m\.onnx: the self-test failed: random make output 'y'"):
        open_model(model, "")


def test_a_long_run_is_tried_few_times(path, monkeypatch):
    monkeypatch.setattr("core.schedule.trial.LONG_S", 0.0)
    runs, real = [], OrtBackend.run

    def run(self, inputs):
        runs.append(len(inputs["x"]))
        return real(self, inputs)

    monkeypatch.setattr(OrtBackend, "run", run)
    weights = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = save(path, nodes, [value("x", ["n", 3])], [value("y", ["n", 2])], [weights])
    told = describe(open_model(model, ""), 32)
    assert (told["max_batch"], told["obstacle"]) == (32, "")
    assert [rows for rows, _ in told["seconds"]] == [1]
    # The file's self-test, a warm run, another row, both together.
    assert runs == [1, 1, 1, 2]


def test_inputs_of_one_shape_are_tried_with_different_numbers(path):
    # The difference of equal inputs is zero however rows are mixed.
    mean = helper.make_node("ReduceMean", ["d"], ["m"], axes=[0])
    nodes = [helper.make_node("Sub", ["a", "b"], ["d"]), mean,
             helper.make_node("Add", ["d", "m"], ["y"])]  # fmt: skip
    ends = [value("a", ["n", 3]), value("b", ["n", 3])], [value("y", ["n", 3])]
    told = describe(open_model(save(path, nodes, *ends), ""), 4)
    assert told["obstacle"] == "output 'y' of a row depends on the other rows"


def test_an_image_model_with_open_sizes_is_tried_with_a_size_that_it_takes(path):
    weights = numpy_helper.from_array(np.ones((1, 3, 31, 31), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    ends = [value("x", ["n", 3, "h", "w"])], [value("y", ["n", 1, "a", "b"])]
    told = describe(open_model(save(path, nodes, *ends, [weights]), ""), 4)
    assert (told["max_batch"], told["obstacle"]) == (4, "")


def test_copies_outlive_the_file_and_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder(tmp_path / "temporary")))
    file = with_outside_weights(tmp_path / "m.onnx")
    kept = Kept()
    copy = kept.keep(file, hash_model(file))
    file.write_bytes(b"another")
    (tmp_path / "w.bin").unlink()
    assert open_model(copy, "").predict({"x": np.ones((1, 3), np.float32)})["y"][0, 0] == 6.0
    with pytest.raises(ValueError, match="not an ONNX file"):
        kept.keep(file, "")
    kept.drop(copy)
    assert not copy.exists()
    kept.close()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_copies_of_a_killed_process_are_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder(tmp_path / "temporary")))
    left = folder(tmp_path / "temporary" / f"{PREFIX}left")
    (left / "lock").write_bytes(b"")
    (left / "1").mkdir()
    used = Kept()
    kept = Kept()
    assert not left.exists()
    assert used.folder.exists()
    used.close()
    kept.close()
