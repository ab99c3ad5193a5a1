import os
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from core.convert.export import export_onnx
from core.convert.load import load_source


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def same(source, module, *inputs):
    names = list(source.example)
    outputs = source.run({n: x.numpy() for n, x in zip(names, inputs, strict=True)})
    with torch.no_grad():
        expected = module.eval()(*inputs)
    # Not equal: torch takes other kernels for weights that lie elsewhere in memory.
    np.testing.assert_allclose(next(iter(outputs.values())), expected.numpy(), rtol=1e-3)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_state_dict_is_matched_to_its_architecture_and_number_of_classes(tmp_path, suffix):
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(num_classes=5)
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pt":
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        safetensors.torch.save_file(model.state_dict(), path)
    source = load_source(path)
    assert (source.name, source.origin) == ("mine", "torchvision mobilenet_v3_small, state_dict")
    assert [tuple(t.shape) for t in source.example.values()] == [(1, 3, 224, 224)]
    assert source.axes["image"][0].name == "batch"
    same(source, model, torch.randn(2, 3, 64, 64))


def test_resnets_of_equal_keys_are_told_apart_by_their_shapes(tmp_path):
    with torch.device("meta"):
        state = torchvision.models.resnext50_32x4d().state_dict()
    from core.convert.architectures import find_architecture

    assert find_architecture(state).name == "resnext50_32x4d"


def test_unknown_weights_are_refused_with_the_way_to_save_the_model(tmp_path):
    torch.save({"some.weight": torch.zeros(2)}, tmp_path / "m.pt")
    from unittest.mock import patch

    # Building all of torchvision's models to say no takes a while.
    with (
        patch("core.convert.architectures._candidates", return_value=["alexnet"]),
        pytest.raises(ValueError, match=r"some\.weight.*torch\.export\.save"),
    ):
        load_source(tmp_path / "m.pt")


def test_a_pickled_module_is_refused_unless_trusted(tmp_path):
    torch.save(Tiny(), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"pickled .*Tiny.*can run any code; save it with .*trust"):
        load_source(tmp_path / "m.pt", example=torch.zeros(1, 3))
    source = load_source(tmp_path / "m.pt", example=torch.zeros(1, 3), trust_pickle=True)
    assert source.origin == "pickled Tiny, trusted"
    assert source.output_names == ("output",)


def test_code_in_a_pickle_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Bomb()}, "m.pt")
    with pytest.raises(ValueError, match=r"pickled (os|posix)\.mkdir"):
        load_source("m.pt")
    assert not (tmp_path / "unpickled").exists()


def test_a_torchscript_file_needs_an_example(tmp_path):
    model = Tiny().eval()
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3)), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"inputs of 'm' \(TorchScript\) are not known; pass ex"):
        load_source(tmp_path / "m.pt")
    source = load_source(tmp_path / "m.pt", example={"x": np.zeros((1, 3), np.float32)})
    assert (list(source.example), source.axes["x"][0].name) == (["x"], "batch")
    same(source, model, torch.randn(4, 3))
    assert export_onnx(source, tmp_path / "m.onnx").used == "legacy"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "m.pt2"
    length = torch.export.Dim("length", min=2, max=5)
    shapes = ({0: torch.export.Dim("batch", min=1, max=6), 1: 4 * length},)
    module = nn.Sequential(nn.Unflatten(1, (-1, 4)), nn.Linear(4, 2)).eval()
    torch.export.save(
        torch.export.export(module, (torch.randn(2, 12),), dynamic_shapes=shapes), path
    )
    return path, module


def test_an_exported_program_brings_its_inputs_and_axes(program, tmp_path):
    path, module = program
    source = load_source(path)
    (axes,) = source.axes.values()
    assert [(axis.low, axis.high, axis.multiple_of) for axis in axes.values()] == [
        (1, 6, 1),
        (8, 20, 4),
    ]
    same(source, module, torch.randn(3, 16))
    assert export_onnx(source, tmp_path / "m.onnx").used == "dynamo"


CHANGES = {
    "an operator": (b"torch.ops.aten.", b"torch.hub.os.aten.", "target 'torch.hub.os.aten"),
    "a call": (b'"expr_str": "', b'"expr_str": "abort() or ', "expr_str .abort"),
    "text": (b'"expr_str": "', b'"expr_str": "Symbol(\'os.abort()\') or ', "expr_str"),
    "pickled weights": (b'"use_pickle": false', b'"use_pickle": true', "pickled tensors"),
    "a line of code": (b'"name": "weight"', b'"name": "x=abort() #"', "name 'x=abort"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_program_that_could_run_code_is_refused_before_torch_reads_it(program, tmp_path, change):
    old, new, message = CHANGES[change]
    with (
        zipfile.ZipFile(program[0]) as given,
        zipfile.ZipFile(tmp_path / "m.pt2", "w") as changed,
    ):
        for name in given.namelist():
            changed.writestr(name, given.read(name).replace(old, new))
    with pytest.raises(ValueError, match=f"holds {message}.*trust_pickle=True if you know who"):
        load_source(tmp_path / "m.pt2")


def test_pickled_objects_in_a_program_are_refused(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save((Bomb(),), "bomb.pt")
    with zipfile.ZipFile(program[0]) as given, zipfile.ZipFile("m.pt2", "w") as changed:
        for name in given.namelist():
            is_example = name.endswith("sample_inputs/model.pt")
            changed.writestr(
                name, (tmp_path / "bomb.pt").read_bytes() if is_example else given.read(name)
            )
    with pytest.raises(ValueError, match=r"sample_inputs/model\.pt holds pickled objects"):
        load_source("m.pt2")
    assert not (tmp_path / "unpickled").exists()


def test_an_onnx_file_brings_its_names_and_axes(tmp_path):
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    kind = onnx.TensorProto.FLOAT
    x = onnx.helper.make_tensor_value_info("x", kind, ["n", 3])
    y = onnx.helper.make_tensor_value_info("y", kind, ["n", 3])
    opset = [onnx.helper.make_opsetid("", 17)]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    source = load_source(tmp_path / "m.onnx")
    assert (source.output_names, source.axes["x"][0].name) == (("y",), "n")
    given = np.array([[-1, 0, 2]], np.float32)
    np.testing.assert_array_equal(source.run({"x": given})["y"], [[0, 0, 2]])


def test_a_transformers_folder_is_read_without_pickles_or_code(tmp_path):
    import transformers

    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=24,
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "bert")
    source = load_source(tmp_path / "bert")
    assert list(source.example) == ["input_ids", "attention_mask"]
    assert source.output_names == ("logits",)
    assert {axis.name for axis in source.axes["input_ids"].values()} == {"batch", "sequence"}
    (tmp_path / "bert" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        load_source(tmp_path / "bert")


def test_what_is_no_model_is_refused(tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(80 << 20))
    (tmp_path / "empty.pt").touch()
    (tmp_path / "garbage.pt").write_bytes(b"no model at all")
    (tmp_path / "garbage.onnx").write_bytes(b"no model at all")
    (tmp_path / "garbage.safetensors").write_bytes(b"no model at all")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x02garbage")
    (tmp_path / "folder").mkdir()
    expected = {
        "bomb.pt": "would unpack to 80 MiB",
        "empty.pt": "is empty",
        "garbage.pt": "holds no model that is known here",
        "garbage.onnx": "no valid ONNX",
        "garbage.safetensors": "no safetensors file",
        "cut.pt": "damaged or cut short",
        "pickle.pt": "is damaged",
        "folder": "a folder without",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=message):
            load_source(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"missing\.pt.* does not exist"):
        load_source(tmp_path / "missing.pt")


def test_an_example_that_does_not_fit_says_so(tmp_path):
    torch.save(Tiny(), tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"does not run with its example \(input \[1, 4\]\)"):
        load_source(tmp_path / "m.pt", example=torch.zeros(1, 4), trust_pickle=True)
    with pytest.raises(ValueError, match="fits no input; there are input"):
        load_source(
            tmp_path / "m.pt", example=torch.zeros(1, 3), axes={"z": {0: "n"}}, trust_pickle=True
        )


def test_the_folder_of_a_run_is_opened_by_its_kit(tmp_path, monkeypatch):
    opened = SimpleNamespace(source="the source")
    kit = SimpleNamespace(open_run=lambda path: opened if path == tmp_path else None)
    monkeypatch.setitem(sys.modules, "kits.made_up", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "kits.made_up.kit", SimpleNamespace(KIT=kit))
    (tmp_path / "environment.json").write_text('{"kit": "made_up"}')
    assert load_source(tmp_path) == "the source"
    (tmp_path / "environment.json").write_text('{"kit": "../made_up"}')
    with pytest.raises(ValueError, match="no name of a kit"):
        load_source(tmp_path)
