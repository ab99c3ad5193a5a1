import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.core.schedule.pools import save, value


@pytest.fixture
def linear(tmp_path):
    """y = x @ w, w (3, 2) of 1 to 6."""
    weights = numpy_helper.from_array(np.arange(1, 7, dtype=np.float32).reshape(3, 2), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [value("x", ["batch", 3])], [value("y", ["batch", 2])]
    return save(tmp_path / "linear.onnx", nodes, *ends, [weights])


@pytest.fixture
def slow(tmp_path):
    """y = x, after as many matrix products as `turns` says; a million take minutes."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["held", "wide"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            value("i", [], TensorProto.INT64),
            value("go", [], TensorProto.BOOL),
            value("held", [64, 64]),
        ],
        [value("go_on", [], TensorProto.BOOL), value("next", [64, 64])],
    )
    weights = [
        numpy_helper.from_array(np.eye(64, dtype=np.float32), "wide"),
        numpy_helper.from_array(np.ones((), bool), "true"),
        numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["turns"], ["count"], keepdims=0),
        helper.make_node("Loop", ["count", "true", "wide"], ["held_last"], body=body),
        helper.make_node("ReduceMax", ["held_last"], ["one"], keepdims=0),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    ends = [value("x", ["n", 3]), value("turns", ["n"], TensorProto.INT64)], [value("y", ["n", 3])]
    return save(tmp_path / "slow.onnx", nodes, *ends, weights)
