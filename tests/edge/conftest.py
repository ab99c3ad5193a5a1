"""A small signed bundle to open: a convolution, a mean and a score, for several targets."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.arrays import write_npz
from edge.bundle import write_bundle
from edge.keys import new_key
from edge.target import Target, Tolerance
from edge.trust import Trust

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def small_model():
    """(batch, 3, 8, 8) float32 "image" -> (batch, 4) float32 "logits"."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["logits"], keepdims=0),
    ]
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    opset = [helper.make_opsetid("", 18)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def small_target(**changes):
    made = Target(
        id="portable-onnx",
        arch="any",
        backend="onnxruntime",
        accelerator="cpu",
        precision="float32",
        model="model/model.onnx",
        state="verified",
        tolerance=Tolerance(1e-5, 1e-5, "order of sums in float32"),
        runtime=">=1.20",
    )
    return replace(made, **changes)


TARGETS = [
    small_target(),
    small_target(id="x86_64-openvino-cpu", arch="x86_64", backend="openvino", runtime=""),
    small_target(
        id="x86_64-openvino-cpu-bf16",
        arch="x86_64",
        backend="openvino",
        precision="bfloat16",
        runtime="",
        tolerance=Tolerance(0.05, 0.02, "eight bits of mantissa"),
    ),
    small_target(
        id="jetson-orin-trt",
        arch="aarch64",
        backend="tensorrt",
        accelerator="orin",
        precision="float16",
        model="artifacts/jetson-orin-trt/model.onnx",
        state="contract-only",
        recipe={"argv": ["trtexec", "--onnx=model.onnx", "--fp16"]},
        runtime="",
    ),
]
PRE = [
    {"op": "normalise", "input": "photo", "output": "photo", "mean": MEAN, "std": STD},
    {"op": "resize", "input": "photo", "height_px": 8, "width_px": 8},
    {"op": "to_channels_first", "input": "photo", "output": "image"},
]
POST = [
    {"op": "softmax", "input": "logits", "output": "score"},
    {"op": "argmax", "input": "logits", "output": "class"},
]
TENSORS = {
    "inputs": [{"name": "photo", "dtype": "float32", "shape": ["batch", "height", 10, 3]}],
    "outputs": [
        {"name": "score", "dtype": "float32", "shape": ["batch", 4]},
        {"name": "class", "dtype": "int64", "shape": ["batch"]},
    ],
}


def vectors(model, rows=8):
    rng = np.random.default_rng(1)
    image = rng.standard_normal((rows, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return {"input/image": image, "output/logits": session.run(None, {"image": image})[0]}


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """`bundles.make(...)` writes a bundle signed by the one key of `bundles.home`."""
    home = tmp_path_factory.mktemp("home")
    signer = new_key(home)
    model = small_model()
    made = vectors(model)

    def make(path, *, targets=TARGETS, files=None, manifest=None):
        contents = {
            "model/model.onnx": model,
            "artifacts/jetson-orin-trt/model.onnx": model,
            "pipeline/pre.json": json.dumps(PRE).encode(),
            "pipeline/post.json": json.dumps(POST).encode(),
            "selftest/vectors.npz": write_npz(made),
            **{f"targets/{t.id}.json": json.dumps(t.to_json()).encode() for t in targets},
            **(files or {}),
        }
        header = {
            "name": "small",
            "version": "1.2.0",
            "channel": "stable",
            "created": 1_700_000_000,
            "expires": None,
            "rollback_index": 3,
            "min_runtime": "0.1.0",
            "requires": {"memory_mib": 64, "disk_mib": 1},
            "model": "model/model.onnx",
            "targets": [target.id for target in targets],
            "license": "Apache-2.0",
            "intended_use": "A picture's class, in tests.",
            **TENSORS,
            **(manifest or {}),
        }
        write_bundle(path, header, contents, {}, [signer])
        return path

    return SimpleNamespace(
        home=home, trust=Trust.load(home), make=make, model=model, vectors=made, target=small_target
    )


@pytest.fixture
def trusted(bundles, monkeypatch):
    """The key of the bundles is trusted, as by a device's user."""
    monkeypatch.setenv("DEEPKITS_HOME", str(bundles.home))
    return bundles


@pytest.fixture(scope="session")
def small_bundle(bundles, tmp_path_factory):
    """The bundle as it should be."""
    return bundles.make(tmp_path_factory.mktemp("bundle") / "small.ebundle")
