import subprocess
import sys

import numpy as np
import torch
import torchvision

import deepseek

BRIEF = """
from deepseek import ModelConverter
converter = ModelConverter(input_path="resnet50.pt", output_format="onnx")
converter.convert()
"""


def test_the_lines_of_the_brief_run(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    torch.save(model.state_dict(), tmp_path / "resnet50.pt")
    monkeypatch.chdir(tmp_path)
    exec(BRIEF, {})  # the lines as they stand in the brief
    assert_same("resnet50.onnx", model)
    assert (tmp_path / "resnet50.onnx.parity.html").exists()


def test_a_small_state_dict_becomes_onnx_beside_it(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    done = deepseek.ModelConverter(input_path=tmp_path / "mine.pt", output_format="onnx").convert()
    assert done.path == tmp_path / "mine.onnx"
    assert (done.parity.passed, done.trail.used) == (True, "dynamo")
    assert_same(done.path, model)


def assert_same(path, model):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((3, 3, 224, 224), dtype=np.float32)
    (got,) = session.run(None, {"image": image})
    with torch.no_grad():
        wanted = model(torch.from_numpy(image)).numpy()
    # float32 sums over up to 4608 terms in another order.
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_the_facade_loads_no_torch_and_knows_its_names():
    code = (
        "import deepseek, sys\n"
        "assert 'torch' not in sys.modules\n"
        "try: deepseek.Converter\n"
        "except AttributeError as error: assert 'Converter' in str(error)\n"
        "else: raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
