import numpy as np
import onnx
import torch
from torch import nn

from core.convert.export import export_onnx
from core.convert.source import Axis, Source

BATCH = Axis("batch", 1, 8)
TIME = Axis("time", 1, 12)


class BothWays(nn.Module):
    """A hand-written bidirectional LSTM: torch.export freezes its time axis (pytorch 191855)."""

    def __init__(self):
        super().__init__()
        self.forwards = nn.LSTM(3, 4, batch_first=True)
        self.backwards = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        there, _ = self.forwards(x)
        back, _ = self.backwards(torch.flip(x, [1]))
        position = torch.arange(x.shape[1]).flip(0)[None, :, None].expand_as(back)
        return torch.cat([there, torch.gather(back, 1, position)], -1)


def sequence_source(module, **changes):
    fields = {
        "name": "tiny",
        "origin": "test",
        "module": module.eval(),
        "example": {"x": torch.randn(1, 5, 3)},
        "output_names": ("y",),
        "axes": {"x": {0: BATCH, 1: TIME}},
    }
    return Source(**{**fields, **changes})


def run(path, **inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def sizes(values):
    return [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values]


def test_a_frozen_time_axis_is_noticed_and_the_legacy_exporter_takes_over(tmp_path):
    torch.manual_seed(0)
    source = sequence_source(BothWays())
    trail = export_onnx(source, tmp_path / "m.onnx")
    assert [step.name for step in trail.steps] == ["dynamo", "legacy"]
    x = np.random.default_rng(0).standard_normal((3, 11, 3), dtype=np.float32)
    (y,) = run(tmp_path / "m.onnx", x=x)
    # float32 sums of 3 and 4 terms, in another order.
    np.testing.assert_allclose(y, source.run({"x": x})["y"], atol=1e-5)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert sizes(graph.input) == [["batch", "time", 3]]
    assert sizes(graph.output)[0][:2] == ["batch", "time"]
