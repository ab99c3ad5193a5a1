"""AOTInductor and ExecuTorch: made from the module, run here, compared over every free axis."""

import pytest
import torch
from torch import nn

from core.convert.parity import compare
from core.convert.source import Axis, Source
from core.convert.target import Options, converter_of, find_converter

PATH = None  # these targets never read the ONNX file


class TwoInputs(nn.Module):
    """Two inputs, two outputs, two free axes; nested outputs as detectors give them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, mask):
        hidden = torch.relu(self.layer(x)) * mask[..., None]
        return {"sum": hidden.sum(1), "all": hidden}


def two_inputs(**changes):
    batch, time = Axis("batch", 1, 8), Axis("time", 1, 6)
    torch.manual_seed(0)
    fields = {
        "name": "tiny",
        "origin": "test",
        "module": TwoInputs().eval(),
        "example": {"x": torch.randn(1, 5, 4), "mask": torch.ones(1, 5)},
        "output_names": ("sum", "all"),
        "axes": {"x": {0: batch, 1: time}, "mask": {0: batch, 1: time}},
    }
    return Source(**{**fields, **changes})


def convert(target_id, source, folder, options=None):
    converter = converter_of(target_id)
    return converter, converter.convert(source, PATH, folder, target_id, options or Options())


def assert_same(source, artifact, runner):
    parity = compare(source, runner, artifact.target.tolerance)
    assert parity.passed, parity
    assert runner.facts["precision"] == artifact.target.precision == "float32"


@pytest.mark.slow  # 13-29 s: a C++ compiler runs
def test_aoti_computes_the_same_at_every_size(tmp_path):
    source = two_inputs()
    converter, artifact = convert("x86_64-aoti-cpu", source, tmp_path)
    assert artifact.path.name == "tiny.pt2"
    assert artifact.target.options["instructions"] in artifact.notes[0]
    assert not artifact.is_reproducible
    runner = converter.open(artifact)
    assert runner.facts["provider"] == "cpu"
    assert_same(source, artifact, runner)
    torch.set_float32_matmul_precision("medium")  # lets oneDNN round products to bfloat16
    try:
        assert runner.facts["precision"] != "float32"
    finally:
        torch.set_float32_matmul_precision("highest")


class OneInput(nn.Module):
    """A linear layer: what XNNPACK takes as a whole."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return torch.relu(self.layer(x))


def test_executorch_computes_the_same_at_every_size(tmp_path):
    example = {"x": torch.randn(1, 4)}
    source = two_inputs(
        module=OneInput().eval(),
        example=example,
        output_names=("y",),
        axes={"x": {0: Axis("batch", 1, 8)}},
    )
    converter, artifact = convert("any-executorch-xnnpack", source, tmp_path)
    assert artifact.path.name == "tiny.pte"
    assert artifact.path.read_bytes()[4:6] == b"ET"
    assert artifact.target.options["delegates"] == ["XnnpackBackend"]
    assert artifact.target.options["undelegated"] == []
    assert artifact.notes[1].endswith("batch 1-8 (x[0])")
    runner = converter.open(artifact)
    assert runner.facts["provider"] == "XnnpackBackend"
    assert_same(source, artifact, runner)
    with pytest.raises(RuntimeError):  # above the bound that memory was planned for
        runner.run(source.inputs({"batch": 9}, 0))


@pytest.mark.slow  # 10-40 s: lowered four times
def test_executorch_leaves_reshapes_of_two_free_axes_to_plain_kernels(tmp_path):
    source = two_inputs()
    converter, artifact = convert("any-executorch-xnnpack", source, tmp_path)
    assert "batch 1-8 (x[0], mask[0]), time 1-6 (x[1], mask[1])" in artifact.notes[1]
    assert "reshapes are left to plain kernels" in artifact.notes[2]
    assert_same(source, artifact, converter.open(artifact))
    (again := tmp_path / "again").mkdir()
    other = convert("any-executorch-xnnpack", source, again)[1]
    assert other.path.read_bytes() == artifact.path.read_bytes()


@pytest.mark.parametrize("name", ["aoti", "executorch"])
def test_a_source_that_cannot_be_traced_is_refused(name, tmp_path):
    converter = find_converter(name)
    (target_id,) = converter.ids
    with pytest.raises(ValueError, match="without a torch module"):
        converter.convert(two_inputs(module=None), PATH, tmp_path, target_id, Options())
    with pytest.warns(FutureWarning, match="deprecated"):
        script = torch.jit.script(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="TorchScript"):
        converter.convert(two_inputs(module=script), PATH, tmp_path, target_id, Options())
    with pytest.raises(ValueError, match="precision='int8'"):
        convert(target_id, two_inputs(), tmp_path, Options(precision="int8"))
    with pytest.raises(ValueError, match=f"target='other' is not one of {target_id}"):
        converter.convert(two_inputs(), PATH, tmp_path, "other", Options())
    assert not list(tmp_path.iterdir())


class FixesBatch(TwoInputs):
    """Computes with the number of rows it was traced with."""

    def forward(self, x, mask):
        return super().forward(x.reshape(2, -1, 4), mask)


def test_an_axis_the_module_fixes_is_named(tmp_path):
    with pytest.raises(ValueError, match="batch"):
        convert("any-executorch-xnnpack", two_inputs(module=FixesBatch().eval()), tmp_path)


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "executorch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \.\[executorch\]"):
        convert("any-executorch-xnnpack", two_inputs(), tmp_path)
