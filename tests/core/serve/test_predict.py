import contextlib
import json
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.serve import predict
from core.serve.errors import BadRequest
from edge.manifest import Tensor
from tests.core.serve.small_engine import SmallEngine, app_of, get, post, served

X = Tensor("x", "float32", ("batch", 3))


class Words:
    """A service of its own shape: counts letters."""

    request_schema = MappingProxyType({"type": "object", "examples": [{"words": ["a"]}]})
    response_schema = MappingProxyType({"type": "object", "description": "<b>sizes</b>"})

    def decode(self, request):
        if "words" not in request:
            raise ValueError("request lacks 'words'")
        return {"x": np.array([[len(word) for word in request["words"]]], np.float32)}

    def encode(self, outputs):
        return {"sizes": outputs["y"][0]}


def test_predict_takes_and_gives_the_models_own_names():
    reply = post(app_of(), "/models/double/predict", {"x": [[1, 2, 3]]})
    assert (reply.status, reply.json) == (200, {"y": [[3.0, 6.0, 9.0]]})


def test_predict_takes_a_version_in_the_path():
    reply = post(app_of(), "/models/double/versions/1/predict", {"x": [[1, 2, 3]]})
    assert reply.json == {"y": [[2.0, 4.0, 6.0]]}


def test_a_service_has_its_own_shape():
    app = app_of(services={"double": Words()})
    reply = post(app, "/models/double/predict", {"words": ["one", "three", "seven"]})
    assert reply.json == {"sizes": [9.0, 15.0, 15.0]}
    reply = post(app, "/models/double/predict", {})
    assert (reply.status, reply.json) == (400, {"error": "request lacks 'words'"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["'x' is missing", "the inputs are x"]),
        ({"x": [[1, 2, 3]], "z": 1}, ["'z' is unknown", "the inputs are x"]),
        ({"x": [1, 2, 3]}, ["'x'", "holds 1", "axis 1", "(batch, 3)"]),
        ({"x": 1}, ["'x'", "holds 1", "axis 0"]),
        ({"x": [[1, 2], [3]]}, ["'x'", "lists of 1 and of 2 values", "axis 1"]),
        ({"x": [[1, 2], 3]}, ["'x'", "holds 3"]),
        ({"x": [[[1], [2], [3]]]}, ["'x'", "holds [1]", "FP32 takes numbers"]),
        ({"x": [[1, "2", 3]]}, ["'x'", "'2'"]),
        ({"x": []}, ["'x'", "no values along axis 0"]),
        ({"x": [[]]}, ["'x'", "no values along axis 1"]),
    ],
)
def test_a_wrong_input_is_named_with_its_value(content, words):
    with pytest.raises(BadRequest) as error:
        predict.decode(content, (X,))
    for word in words:
        assert word in str(error.value)


def test_a_model_without_axes_takes_one_value():
    array = predict.decode({"n": 3}, (Tensor("n", "int64", ()),))["n"]
    assert (array.shape, array.dtype, int(array)) == ((), np.int64, 3)


@pytest.mark.parametrize("body", [b"", b"[]", b"x=1"])
def test_what_is_no_json_object_is_refused(body):
    assert post(app_of(), "/models/double/predict", body).status == 400


def test_the_example_in_the_schema_is_taken():
    model = served("m", (X, Tensor("mask", "bool", (2,))), ())
    schema = predict.request_schema(model)
    predict.decode(schema["examples"][0], model.inputs)
    rows = schema["properties"]["x"]
    assert rows["items"]["minItems"] == rows["items"]["maxItems"] == 3
    assert "minItems" not in rows
    assert schema["properties"]["mask"]["items"] == {"type": "boolean"}


def test_openapi_has_a_typed_schema_for_each_model_that_is_ready():
    document = get(app_of(services={"double": Words()}), "/openapi.json").json
    paths = document["paths"]
    assert "/models/double/versions/1/predict" in paths
    assert "/models/failed/predict" not in paths

    def schema(path):
        return paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert schema("/models/double/predict") == Words.request_schema
    echoed = schema("/models/echo/predict")["properties"]["in_uint8"]["items"]
    assert (echoed["minimum"], echoed["maximum"]) == (0, 255)
    example = schema("/v2/models/echo/infer")["examples"][0]
    assert post(app_of(), "/v2/models/echo/infer", example).status == 200


def test_the_docs_page_shows_lines_that_work_and_runs_nothing():
    app = app_of(services={"double": Words()})
    page = get(app, "/docs").body.decode()
    assert "curl -s http://localhost:8080/models/double/predict" in page
    assert "&lt;b&gt;sizes" in page
    assert "Triples &lt;numbers&gt;" in page
    assert "<script" not in page
    assert "style=" not in page


def test_outputs_of_all_types_are_written():
    arrays = {"a": np.arange(4, dtype=np.int8).reshape(2, 2).T, "b": np.array([True])}
    encoded = predict.encode(arrays)
    assert {name: array.tolist() for name, array in encoded.items()} == {
        "a": [[0, 2], [1, 3]],
        "b": [True],
    }


def test_predict_of_all_types():
    engine = SmallEngine()
    content = {
        tensor.name: [True, False] if tensor.dtype == "bool" else [1, 2]
        for tensor in engine.find("echo").inputs
    }
    reply = post(app_of(engine), "/models/echo/predict", json.dumps(content).encode())
    assert reply.json == {f"out{name[2:]}": values for name, values in content.items()}


TENSORS = (X, Tensor("n", "int8", ()), Tensor("flags", "bool", (1, "any")))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({"x": VALUES, "n": VALUES, "flags": VALUES}))
def test_decode_never_fails_with_an_error_of_its_own(content):
    with contextlib.suppress(BadRequest):
        predict.decode(content, TENSORS)
