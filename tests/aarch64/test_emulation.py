"""The device's code on the other architecture: emulated aarch64, from Debian's Python upwards."""

import itertools
import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.arrays import write_npz
from edge.bundle import write_bundle
from edge.keys import new_key
from edge.target import Target, Tolerance
from kernels.build import build

TORCH_IS_IMPOSSIBLE = """
import platform, sys
import edge.pipeline, edge.backends.onnxruntime, onnxruntime
try:
    import torch
except ModuleNotFoundError:
    print(platform.machine(), onnxruntime.__version__)
"""

KERNELS = """
import sys
from pathlib import Path
from kernels import native
native.LIBRARIES = Path(sys.argv[1])
print(native.instruction_set(), native.load()._name)
"""


def conv_model():
    """(batch, 3, height, width) float32 -> (batch, 10): three convolutions, pooled."""
    rng = np.random.default_rng(0)
    widths = [3, 8, 16, 32]
    nodes, weights, value = [], [], "image"
    for level, (before, after) in enumerate(itertools.pairwise(widths)):
        kernel = rng.standard_normal((after, before, 3, 3)) / np.sqrt(9 * before / 2)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel{level}"))
        nodes += [
            helper.make_node(
                *("Conv", [value, f"kernel{level}"], [f"sum{level}"]),
                pads=[1, 1, 1, 1],
                strides=[2, 2],
            ),
            helper.make_node("Relu", [f"sum{level}"], [value := f"level{level}"]),
        ]
    head = rng.standard_normal((32, 10)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    shape = ["batch", 3, "height", "width"]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "conv", [image], [logits], weights)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def trust(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def conv_bundle(tmp_path_factory, trust):
    """A signed bundle with a target for each machine; golden outputs of this one."""
    model = conv_model()
    native = Target(
        id="x86_64-ort-cpu",
        arch="x86_64",
        backend="onnxruntime",
        accelerator="cpu",
        precision="float32",
        model="model/model.onnx",
        state="verified",
        tolerance=Tolerance(1e-5, 1e-5, "the same sums in another order"),
        runtime=">=1.24.4",
    )
    targets = [native, replace(native, id="aarch64-ort-cpu", arch="aarch64", state="emulated")]
    image = np.random.default_rng(1).standard_normal((8, 3, 24, 40), np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": image})
    vectors = write_npz({"input/image": image, "output/logits": logits})
    tensor = {"dtype": "float32", "shape": ["batch", 3, "height", "width"]}
    manifest = {
        "name": "conv",
        "version": "1",
        "channel": "test",
        "created": 1_700_000_000,
        "expires": None,
        "rollback_index": 0,
        "min_runtime": "0.1.0",
        "requires": {"memory_mib": 64, "disk_mib": 1},
        "model": "model/model.onnx",
        "inputs": [{"name": "image", **tensor}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
        "targets": [target.id for target in targets],
        "license": "Apache-2.0",
        "intended_use": "a test",
    }
    files = {"model/model.onnx": model, "selftest/vectors.npz": vectors}
    files |= {
        f"targets/{target.id}.json": json.dumps(target.to_json()).encode() for target in targets
    }
    path = tmp_path_factory.mktemp("bundle") / "conv.ebundle"
    write_bundle(path, manifest, files, {}, [new_key(trust)])
    return path


def test_there_is_no_torch_on_the_device(emulated, tmp_path):
    process = emulated("-c", TORCH_IS_IMPOSSIBLE, folder=tmp_path)
    assert process.stdout.split() == ["aarch64", "1.24.4"], process.stderr


def test_a_bundle_gives_the_outputs_of_this_machine(check_on_both, conv_bundle, trust, tmp_path):
    sample = {"image": np.random.default_rng(2).standard_normal((3, 3, 33, 17), np.float32)}
    outputs, printed = check_on_both(conv_bundle, sample, trust, tmp_path)
    assert outputs["logits"].shape == (3, 10)
    assert np.ptp(outputs["logits"]) > 0.1
    assert "aarch64-ort-cpu (emulated)" in printed
    assert "latency   not stated" in printed


def test_a_changed_byte_is_refused_there_too(emulated, conv_bundle, trust, tmp_path):
    content = bytearray(conv_bundle.read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "changed.ebundle"
    changed.write_bytes(content)
    home = {"DEEPKITS_HOME": str(trust)}
    process = emulated("-m", "edge.verify", changed, environment=home, folder=tmp_path)
    assert process.returncode == 1
    assert process.stderr.startswith("refused: ")


def test_the_cross_built_kernels_load_there(emulated, tmp_path):
    (library,) = build("aarch64", tmp_path)
    process = emulated("-c", KERNELS, tmp_path, folder=tmp_path)
    assert process.stdout.split() == ["aarch64", str(library)], process.stderr
