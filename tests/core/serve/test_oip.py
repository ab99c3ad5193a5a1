import contextlib
import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.serve import oip
from core.serve.errors import BadRequest

NUMBERS = [name for name in oip.DTYPES if name not in ("BOOL", "BF16")]


def tensor(**changes):
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **changes}


def decode(*inputs, **more):
    return oip.decode(json.dumps({"inputs": inputs, **more}).encode())


def with_bytes(data, **changes):
    given = tensor(parameters={"binary_data_size": len(data)}, **changes)
    del given["data"]
    head = json.dumps({"inputs": [given]}).encode()
    return oip.decode(head + data, len(head))


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_type_of_number_comes_as_json(datatype):
    array = decode(tensor(datatype=datatype, shape=[1, 2], data=[[1, 2]])).inputs["x"]
    assert (array.dtype, array.tolist()) == (oip.DTYPES[datatype], [[1, 2]])


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_type_of_number_comes_as_bytes(datatype):
    data = np.array([1, 100], oip.DTYPES[datatype])
    assert with_bytes(data.tobytes(), datatype=datatype).inputs["x"].tolist() == [1, 100]


def test_booleans_come_as_json_and_as_bytes():
    assert decode(tensor(datatype="BOOL", data=[True, False])).inputs["x"].tolist() == [True, False]
    assert with_bytes(b"\1\0", datatype="BOOL").inputs["x"].tolist() == [True, False]


def test_bf16_comes_as_the_float32_of_the_same_value():
    values = np.array([1.5, -3e38], ml_dtypes.bfloat16)
    array = with_bytes(values.tobytes(), datatype="BF16").inputs["x"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values.astype(np.float32))


def test_the_largest_whole_numbers_keep_every_digit():
    array = decode(tensor(datatype="UINT64", data=[0, 2**64 - 1])).inputs["x"]
    assert array.tolist() == [0, 2**64 - 1]


def test_bytes_at_an_odd_place_are_read():
    first = {"name": "a", "datatype": "INT8", "shape": [1], "parameters": {"binary_data_size": 1}}
    second = {**first, "name": "b", "datatype": "FP64", "parameters": {"binary_data_size": 8}}
    for spaces in range(8):
        head = json.dumps({"inputs": [first, second]}).encode() + b" " * spaces
        body = head + b"\5" + np.float64(2.5).tobytes()
        found = oip.decode(body, len(head)).inputs
        assert (found["a"].tolist(), found["b"].tolist()) == ([5], [2.5])
        assert found["b"].flags.aligned


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, ["name=''"]),
        ({"name": 3}, ["name=3"]),
        ({"datatype": "FP31"}, ["'x'", "FP31", "FP32"]),
        ({"datatype": "BYTES"}, ["'x'", "BYTES"]),
        ({"datatype": ["FP32"]}, ["'x'", "FP32"]),
        ({"shape": [-1]}, ["'x'", "[-1]"]),
        ({"shape": [2.0]}, ["'x'", "2.0"]),
        ({"shape": [True, 2]}, ["'x'", "True"]),
        ({"shape": None}, ["'x'", "None"]),
        ({"shape": [1] * 17}, ["'x'", "16"]),
        ({"shape": [3]}, ["'x'", "2 values", "3 values"]),
        ({"shape": [2**62, 2**62, 0], "data": []}, ["'x'", "too large"]),
        ({"shape": [2, 1], "data": [[1], [2, 3]]}, ["'x'", "2 values along axis 1", "says 1"]),
        ({"shape": [1, 2], "data": [[1], [2]]}, ["'x'", "nested"]),
        ({"shape": [2], "data": [[1], [2]]}, ["'x'"]),
        ({"data": [1, [2]]}, ["'x'", "[2]"]),
        ({"data": "12"}, ["'x'", "'12'"]),
        ({"data": None}, ["'x'", "None"]),
        ({"data": [1, "2"]}, ["'x'", "'2'", "FP32 takes numbers"]),
        ({"data": [1, None]}, ["'x'", "None"]),
        ({"data": [1, True]}, ["'x'", "True"]),
        ({"data": [1, 1e39]}, ["'x'", "1e+39", "FP32"]),
        ({"datatype": "FP16", "data": [1, 70000]}, ["'x'", "70000", "FP16"]),
        ({"datatype": "INT32", "data": [1, 1.5]}, ["'x'", "1.5", "whole"]),
        ({"datatype": "UINT8", "data": [1, 256]}, ["'x'", "256", "UINT8"]),
        ({"datatype": "UINT8", "data": [1, -1]}, ["'x'", "-1", "UINT8"]),
        ({"datatype": "BOOL", "data": [1, 0]}, ["'x'", "true and false"]),
        ({"parameters": {"binary_data_size": 8}}, ["'x'", "both"]),
        ({"parameters": {"shared_memory_region": "a"}}, ["'x'", "shared memory"]),
        ({"parameters": [1]}, ["'x'", "parameters=[1]"]),
    ],
)
def test_a_wrong_input_is_named_with_its_value(changes, words):
    with pytest.raises(BadRequest) as error:
        decode(tensor(**changes))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"id": 3}, "id=3"),
        ({"parameters": [1]}, "parameters=[1]"),
        ({"parameters": {"timeout": -1}}, "timeout=-1"),
        ({"parameters": {"timeout": "1"}}, "timeout='1'"),
        ({"parameters": {"priority": 1.5}}, "priority=1.5"),
        ({"parameters": {"priority": 2**40}}, "priority"),
        ({"parameters": {"sequence_id": 4}}, "keep no state"),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output=1"),
        ({"outputs": {"name": "y"}}, "outputs="),
        ({"outputs": ["y"]}, "'y'"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "'y'"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "binary_data=1"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 1}}]}, "classification"),
    ],
)
def test_a_wrong_request_is_told(more, words):
    with pytest.raises(BadRequest) as error:
        decode(tensor(), **more)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"3", b"{}", b'{"inputs":[]}', b'{"inputs":3}', b"\xff"]
)
def test_what_is_no_request_is_refused(body):
    with pytest.raises(BadRequest):
        oip.decode(body)


@pytest.mark.parametrize("size", [0, -1, 10**9])
def test_the_size_of_the_json_lies_in_the_request(size):
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        oip.decode(b'{"inputs":[]}', size)


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (b"\0" * 8, 9, "binary_data_size=9"),
        (b"\0" * 8, 4, "is 8 bytes"),
        (b"\0" * 9, 8, "9 bytes follow"),
        (b"\0" * 8, -1, "binary_data_size=-1"),
        (b"\0" * 8, True, "binary_data_size=True"),
    ],
)
def test_all_bytes_must_be_accounted_for(data, size, words):
    given = tensor(parameters={"binary_data_size": size})
    del given["data"]
    head = json.dumps({"inputs": [given]}).encode()
    with pytest.raises(BadRequest, match=words):
        oip.decode(head + data, len(head))


def test_a_byte_that_is_no_boolean_is_refused():
    with pytest.raises(BadRequest, match="byte 2"):
        with_bytes(b"\1\2", datatype="BOOL")


def test_inputs_have_names_of_their_own():
    with pytest.raises(BadRequest, match="twice"):
        decode(tensor(), tensor())


def test_encode_gives_wanted_outputs_each_its_own_way():
    outputs = {
        "a": np.arange(4, dtype=np.float32).reshape(2, 2).T,
        "b": np.array([True]),
        "c": np.array([1], np.int64),
    }
    request = oip.Request({}, outputs={"b": True, "a": False})
    body, size = oip.encode(outputs, request, "m", "1")
    assert json.loads(body[:size])["outputs"] == [
        {"name": "b", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}},
        {"name": "a", "datatype": "FP32", "shape": [2, 2], "data": [0.0, 2.0, 1.0, 3.0]},
    ]
    assert body[size:] == b"\1"


def test_encode_writes_what_json_cannot_as_null_and_bfloat16_as_its_value():
    outputs = {"a": np.array([np.nan, 1], np.float16), "b": np.array([1.5], ml_dtypes.bfloat16)}
    body, size = oip.encode(outputs, oip.Request({}), "m", "1")
    assert size is None
    a, b = json.loads(body)["outputs"]
    assert (a["data"], b["datatype"], b["data"]) == ([None, 1.0], "BF16", [1.5])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
SIZES = st.integers(-1, 12) | JSON
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from("xy") | JSON,
        "datatype": st.sampled_from([*oip.DTYPES, "BYTES"]) | JSON,
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**63]), max_size=4) | JSON,
        "data": st.lists(st.lists(st.integers(-1, 300), max_size=3), max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": SIZES}) | JSON,
    },
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "inputs": st.lists(TENSOR, max_size=3) | JSON,
        "outputs": st.lists(st.fixed_dictionaries({"name": JSON, "parameters": JSON})) | JSON,
        "parameters": st.dictionaries(
            st.sampled_from(["timeout", "priority", "sequence_id", "binary_data_output"]), JSON
        )
        | JSON,
    },
)


@settings(max_examples=200, deadline=None)
@given(REQUEST, st.binary(max_size=24), st.none() | st.integers(-2, 3))
def test_decode_never_fails_with_an_error_of_its_own(content, data, shift):
    head = json.dumps(content).encode("utf-8", "surrogatepass")
    size = None if shift is None else len(head) + shift
    try:
        request = oip.decode(head + (b"" if shift is None else data), size)
    except BadRequest:
        return
    for name, array in request.inputs.items():
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-5, 210))
def test_decode_never_fails_on_bytes(body, size):
    with contextlib.suppress(BadRequest):
        oip.decode(body, size)
