"""Tiny ONNX files for tests of serving."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def write(path, nodes, inputs, outputs, weights=()):
    def values(specs):
        return [helper.make_tensor_value_info(*spec) for spec in specs]

    initializers = [numpy_helper.from_array(array, name) for name, array in weights]
    graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs), initializers)
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=10)
    # Whole or not at all: a service may be watching.
    part = path.with_suffix(".part")
    onnx.save(made, part)
    part.replace(path)
    return path


def write_times(path, factor):
    """y (batch, 3) = x (batch, 3) times a number."""
    return write(
        path,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", FLOAT, ["batch", 3])],
        [("y", FLOAT, ["batch", 3])],
        [("factor", np.array(factor, np.float32))],
    )


def write_nan(path):
    """y is never a number."""
    return write(
        path,
        [helper.make_node("Sub", ["x", "x"], ["o"]), helper.make_node("Div", ["o", "o"], ["y"])],
        [("x", FLOAT, ["batch", 3])],
        [("y", FLOAT, ["batch", 3])],
    )


def write_slow(path, factor=1.0):
    """y (1) = factor, after as many products of two matrices of 256 as the input n (1) says.

    One takes some half a millisecond.
    """
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "eye"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [256, 256]),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["n"], ["count"]),
        helper.make_node("Loop", ["count", "", "start"], ["end"], body=body),
        helper.make_node("ReduceMax", ["end"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "factor"], ["product"]),
        helper.make_node("Reshape", ["product", "shape"], ["y"]),
    ]
    eye = np.eye(256, dtype=np.float32)
    weights = [("eye", eye), ("start", eye), ("factor", np.array(factor, np.float32))]
    weights.append(("shape", np.array([1], np.int64)))
    return write(path, nodes, [("n", INT64, [1])], [("y", FLOAT, [1])], weights)
