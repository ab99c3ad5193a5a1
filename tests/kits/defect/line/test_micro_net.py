import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kits.defect.line.micro_net import MicroNet


@pytest.fixture
def brightest(tmp_path):
    """A cell's score is its brightest pixel."""
    node = helper.make_node("ReduceMax", ["image", "axes"], ["score"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 64, 64])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([node], "g", [given], [score], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "cells.onnx"))
    return tmp_path / "cells.onnx"


def test_flagged_cells_below_the_score_are_left_out(brightest):
    frame = np.full((150, 200), 50, np.uint8)
    frame[10, 10] = frame[70, 140] = frame[149, 199] = 250
    flagged = np.zeros((3, 4), bool)
    flagged[0, 0] = flagged[0, 1] = flagged[1, 2] = flagged[2, 3] = True
    kept = MicroNet.open(brightest, 0.5).keep(frame, flagged)
    assert np.argwhere(kept).tolist() == [[0, 0], [1, 2], [2, 3]]
    assert flagged.sum() == 4
    nothing = np.zeros((3, 4), bool)
    assert not MicroNet.open(brightest, 0.5).keep(frame, nothing).any()


def test_a_model_of_another_kind_is_refused(brightest, tmp_path):
    model = onnx.load(str(brightest))
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 32
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(ValueError, match=r"takes \[\(1, 64, 32\)\]"):
        MicroNet.open(tmp_path / "other.onnx", 0.5)
