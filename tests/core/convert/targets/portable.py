"""A small portable model with what fusing changes: convolution, batch norm, GELU, layer norm."""

import numpy as np
import onnx
import onnx.parser
import torch
from onnx import numpy_helper

from core.convert.parity import compare
from core.convert.source import Axis, Source
from core.convert.target import Options, find_converter

TEXT = """
<ir_version: 9, opset_import: ["" : 18]>
small (float[batch, 3, height, 8] image) => (float[batch, 16] logits, int64[batch] label)
<float half = {0.5}, float one = {1.0}, float root = {1.4142135}, int64[2] flat = {0, -1}>
{
    spread = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, kernel)
    scaled = BatchNormalization (spread, gamma, beta, mean, variance)
    positive = Relu (scaled)
    pooled = GlobalAveragePool (positive)
    flattened = Reshape (pooled, flat)
    mixed = MatMul (flattened, weight)
    divided = Div (mixed, root)
    error = Erf (divided)
    raised = Add (error, one)
    product = Mul (mixed, raised)
    gelu = Mul (product, half)
    normal = LayerNormalization (gelu, scale, bias)
    again = Identity (normal)
    logits = Mul (again, scale)
    label = ArgMax <axis = 1, keepdims = 0> (logits)
}
"""


def small_source():
    """The model as a source without a module."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (8, 3, 3, 3), "weight": (8, 16)}
    shapes |= dict.fromkeys(("gamma", "beta", "mean", "variance"), (8,))
    shapes |= dict.fromkeys(("scale", "bias"), (16,))
    model = onnx.parser.parse_model(TEXT)
    for name, shape in shapes.items():
        values = rng.random(shape, np.float32) + (0.5 if len(shape) == 1 else -0.5)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    axes = {"image": {0: Axis("batch", 1, 6), 2: Axis("height", 4, 20, 4)}}
    example = {"image": torch.zeros(2, 3, 8, 8)}
    origin = "ONNX, written by hand"
    onnx_bytes = model.SerializeToString()
    return Source("small", origin, None, example, ("logits", "label"), axes, onnx_bytes)


def build(source, folder, name, target_id, **options):
    """The converter and what it writes into a new folder."""
    folder.mkdir(parents=True)
    (folder / "portable.onnx").write_bytes(source.onnx)
    (folder / "out").mkdir()
    converter = find_converter(name)
    options = Options(**options)
    made = converter.convert(source, folder / "portable.onnx", folder / "out", target_id, options)
    assert sorted(made.files) == sorted(path.name for path in (folder / "out").iterdir())
    return converter, made


def parity_of(source, converter, artifact):
    """The comparison, as `ModelConverter` makes it."""
    return compare(source, converter.open(artifact), artifact.target.tolerance)
