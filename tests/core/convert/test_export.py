from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from core.convert.export import ExportError, export_onnx
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


class Sinc(nn.Module):
    """The tracing exporter knows no aten::sinc."""

    def forward(self, x):
        return torch.sinc(x)


def test_parts_that_need_different_exporters_are_joined(tmp_path):
    source = sequence_source(nn.Sequential(BothWays(), Sinc()))
    trail = export_onnx(source, tmp_path / "m.onnx")
    assert [step.name for step in trail.steps] == ["dynamo", "legacy", "split"]
    assert "sinc" in trail.steps[1].reason
    x = np.random.default_rng(0).standard_normal((3, 11, 3), dtype=np.float32)
    (y,) = run(tmp_path / "m.onnx", x=x)
    np.testing.assert_allclose(y, source.run({"x": x})["y"], atol=1e-5)


class Stubborn(nn.Module):
    """No exporter knows aten::copysign; once one does, take another."""

    def forward(self, x):
        return torch.copysign(x, x - 1)


def test_a_part_that_no_exporter_takes_is_named_and_nothing_is_written(tmp_path):
    module = nn.Sequential()
    module.add_module("body", nn.Linear(3, 3))
    module.add_module("stubborn", Stubborn())
    with pytest.raises(ExportError, match=r"split: part 'stubborn': dynamo: .*; legacy: "):
        export_onnx(sequence_source(module), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class Nested(nn.Module):
    """Gives a dict of a tensor and a pair, of two inputs that share the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, image, weight):
        maps = self.layer(image)
        return {"maps": maps, "more": (maps.mean((2, 3)) * weight, weight.argmax(1))}


def image_source():
    torch.manual_seed(0)
    height = Axis("height", 8, 32, multiple_of=4)
    return Source(
        name="tiny",
        origin="test",
        module=Nested().eval(),
        example={"image": torch.randn(1, 2, 16, 8), "weight": torch.randn(1, 3)},
        output_names=("maps", "mean", "best"),
        axes={"image": {0: BATCH, 2: height}, "weight": {0: BATCH}},
    )


@pytest.mark.parametrize(("opset", "exporter"), [(17, "legacy"), (18, "dynamo")])
def test_nested_outputs_are_named_and_equal_sources_give_equal_bytes(tmp_path, opset, exporter):
    for name in ("first", "second"):
        trail = export_onnx(image_source(), tmp_path / name / "m.onnx", opset=opset)
        assert (trail.used, trail.opset) == (exporter, opset)
    content = (tmp_path / "first" / "m.onnx").read_bytes()
    assert content == (tmp_path / "second" / "m.onnx").read_bytes()
    model = onnx.load_from_string(content)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert sizes(model.graph.input) == [["batch", 2, "height", 8], ["batch", 3]]
    assert sizes(model.graph.output) == [["batch", 3, "height", 8], ["batch", 3], ["batch"]]
    assert b"/site-packages/" not in content
    assert __file__.encode() not in content


@pytest.mark.parametrize("opset", [17, 18])
def test_a_module_stays_in_evaluation_mode(tmp_path, opset):
    source = image_source()
    assert source.module is not None
    source.module.eval()
    export_onnx(source, tmp_path / "m.onnx", opset=opset)
    assert not any(module.training for module in source.module.modules())


def test_a_given_onnx_file_is_checked_for_its_axes(tmp_path):
    source = image_source()
    export_onnx(source, tmp_path / "m.onnx", opset=17)
    given = replace(source, module=None, onnx=(tmp_path / "m.onnx").read_bytes())
    assert export_onnx(given, tmp_path / "given.onnx", opset=17).used == "given"
    frozen = replace(given, axes={"image": {3: Axis("width", 4, 16)}})
    with pytest.raises(ExportError, match="axis 'width' of input 'image' was frozen at 8"):
        export_onnx(frozen, tmp_path / "frozen.onnx")
    assert not (tmp_path / "frozen.onnx").exists()
