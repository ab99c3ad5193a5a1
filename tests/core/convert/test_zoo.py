"""The quickest models of the zoo, one of each kind; `make zoo` takes all to every target."""

import onnx
import pytest

from benchmarks.zoo.convert import STRICT
from benchmarks.zoo.models import MODELS, build
from core.convert.export import export_onnx
from core.convert.parity import compare
from core.convert.target import Options, find_converter

QUICK = ("squeezenet1_1", "gcn", "graphsage", "lstm_bidirectional_by_hand", "unet_3d",
         "transformer_encoder")  # fmt: skip


def test_the_zoo_has_forty_models():
    assert len(MODELS) == 40


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="model='resnet19' is not one of resnet18, resnet50"):
        build("resnet19")


# torch_geometric scripts some functions while it is imported.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
@pytest.mark.parametrize("name", QUICK)
def test_a_model_of_the_zoo_is_equal_in_onnx_runtime_and_no_axis_is_frozen(name, tmp_path):
    source = build(name)
    file = tmp_path / "model.onnx"
    export_onnx(source, file)
    inputs = {value.name: value for value in onnx.load(file).graph.input}
    for input_name, axes in source.axes.items():
        dims = inputs[input_name].type.tensor_type.shape.dim
        assert {d: dims[d].dim_param for d in axes} == {d: axis.name for d, axis in axes.items()}
    converter = find_converter("onnxruntime")
    artifact = converter.convert(source, file, tmp_path, "x86_64-ort-cpu", Options())
    parity = compare(source, converter.open(artifact), STRICT)
    assert parity.passed, parity.problems
