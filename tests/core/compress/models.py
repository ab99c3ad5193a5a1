"""Models of a few hundred weights, written as ONNX by hand so that no test waits for torch."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes and weights of a model in the making."""

    def __init__(self, seed=0) -> None:
        self.nodes, self.weights = [], []
        self.rng = np.random.default_rng(seed)

    def weight(self, name, *shape, scale=None):
        value = self.rng.standard_normal(shape, dtype=np.float32)
        value *= np.float32(1 / np.sqrt(np.prod(shape[1:]) or 1) if scale is None else scale)
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind, inputs, output, **attributes):
        name = attributes.pop("name", output)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def save(self, path, inputs, outputs, opset=18):
        def infos(shapes):
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()
            ]

        graph = helper.make_graph(self.nodes, "g", infos(inputs), infos(outputs), self.weights)
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def save_cnn(path, opset=18):
    """Convolutions with a residual sum, pooling and a product; x (batch, 3, 12, 12)."""
    g = Graph()
    x = "x"
    for number, (c_in, c_out) in enumerate([(3, 8), (8, 8), (8, 8)]):
        weights = [g.weight(f"w{number}", c_out, c_in, 3, 3), g.weight(f"b{number}", c_out)]
        y = g.node("Conv", [x, *weights], f"conv{number}", pads=[1, 1, 1, 1])
        if number == 2:
            y = g.node("Add", [x, y], "sum")
        x = g.node("Relu", [y], f"relu{number}")
    x = g.node("GlobalAveragePool", [x], "pooled")
    x = g.node("Flatten", [x], "flat")
    g.node("Gemm", [x, g.weight("w", 5, 8), g.weight("b", 5)], "y", transB=1, name="head")
    return g.save(path, {"x": ["batch", 3, 12, 12]}, {"y": ["batch", 5]}, opset)


def save_mlp(path, layers=6, width=16, batch="batch"):
    """Gemms with ReLUs; x (batch, width). Layer 2 has one weight that drowns the others."""
    g = Graph()
    x = "x"
    for number in range(layers):
        g.weight(f"w{number}", width, width)
        if number == 2:
            spoiled = numpy_helper.to_array(g.weights.pop()).copy()
            spoiled[:, 3] *= 300
            g.weights.append(numpy_helper.from_array(spoiled, f"w{number}"))
        x = g.node("Gemm", [x, f"w{number}", g.weight(f"b{number}", width)], f"gemm{number}")
        if number < layers - 1:
            x = g.node("Relu", [x], f"relu{number}")
    return g.save(path, {"x": [batch, width]}, {x: [batch, width]})


def save_lstm(path, steps=4, width=8, hidden=16):
    """An LSTM and a product after it; x (steps, batch, width)."""
    g = Graph()
    w = g.weight("w", 1, 4 * hidden, width, scale=0.3)
    r = g.weight("r", 1, 4 * hidden, hidden, scale=0.2)
    b = g.weight("b", 1, 8 * hidden, scale=0.1)
    g.node("Transpose", ["x"], "by_step", perm=[1, 0, 2])
    lstm = helper.make_node("LSTM", ["by_step", w, r, b], ["", "last"], "lstm", hidden_size=hidden)
    g.nodes.append(lstm)
    g.weights.append(numpy_helper.from_array(np.array([0], np.int64), "axes"))
    g.node("Squeeze", ["last", "axes"], "hidden")
    g.node("MatMul", ["hidden", g.weight("head", hidden, 3)], "y", name="head_product")
    return g.save(path, {"x": ["batch", steps, width]}, {"y": ["batch", 3]})


def save_unknown_operator(path):
    """A product whose distances to constants are taken by an operator of ONNX Runtime's own."""
    g = Graph()
    product = g.node("MatMul", ["x", g.weight("w", 16, 16)], "product")
    g.node("CDist", [product, g.weight("points", 5, 16)], "y", domain="com.microsoft",
           metric="euclidean")  # fmt: skip
    return g.save(path, {"x": ["batch", 16]}, {"y": ["batch", 5]})


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
