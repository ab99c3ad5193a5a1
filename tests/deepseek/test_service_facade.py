import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.core.serve.test_lifecycle import until
from tests.core.serve.test_service import serves_on

ROOT = Path(__file__).parents[2]
BRIEF = """
from deepseek import ServiceDeployer
deployer = ServiceDeployer(model_path="resnet50.onnx", port=8080)
deployer.deploy(auto_scale=True)
"""
URL = "http://127.0.0.1:8080"


def write_small(path):
    """What the name says in its form, image in and logits out, but one layer."""
    weight = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def write_real(path):
    import torch
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    torch.save(model.state_dict(), path.with_suffix(".pt"))
    from deepseek import ModelConverter

    ModelConverter(input_path=path.with_suffix(".pt"), output_format="onnx").convert()


def classify(image):
    """By the protocol, with the image as bytes behind the JSON."""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(image.shape),
        "parameters": {"binary_data_size": image.nbytes},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    request = urllib.request.Request(
        f"{URL}/v2/models/resnet50/infer", head + image.tobytes(), headers
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        (output,) = json.loads(response.read())["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


@pytest.mark.parametrize("write", [write_small, pytest.param(write_real, marks=pytest.mark.slow)])
def test_the_lines_of_the_brief_run(tmp_path, write):
    import onnxruntime

    write(tmp_path / "resnet50.onnx")
    script = subprocess.Popen(
        [sys.executable, "-c", BRIEF],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert script.stdout.readline().startswith(f"resnet50@1 ready on {URL} after ")
        image = np.random.default_rng(1).standard_normal((2, 3, 224, 224), dtype=np.float32)
        path = tmp_path / "resnet50.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (wanted,) = session.run(None, {"image": image})
        # float32 sums in another order.
        np.testing.assert_allclose(classify(image), wanted, atol=1e-4)
        # The script has reached its end and serves on.
        until(lambda: serves_on(script))
        script.send_signal(signal.SIGINT)
        script.communicate(timeout=60)
        assert script.returncode == 0
    finally:
        script.kill()
        script.communicate()


def test_the_facade_knows_the_deployer_without_loading_a_runtime():
    code = (
        "import sys\n"
        "from deepseek import ServiceDeployer\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'fastapi', 'starlette', 'uvicorn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
