"""A bundle of a few convolutions, opened as a network."""

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
from kits.medical.infer import network as network_module
from kits.medical.infer.find import find_nodules
from kits.medical.infer.network import fastest_target, find_bundle, open_network

CLOSE = Tolerance(1e-3, 1e-3, "order of sums in float32")
TARGET = Target(
    id="portable-onnx", arch="any", backend="onnxruntime", accelerator="cpu",
    precision="float32", model="model/model.onnx", state="verified", tolerance=CLOSE,
    runtime=">=1.20",
)  # fmt: skip
OPENVINO = replace(TARGET, id="x86_64-openvino-cpu", arch="x86_64", backend="openvino", runtime="")
BFLOAT16 = replace(
    OPENVINO, id="x86_64-openvino-cpu-bf16", precision="bfloat16",
    tolerance=Tolerance(0.5, 0.1, "eight bits of mantissa"),
)  # fmt: skip


def model():
    """Heat: brightness of 2x2x2 voxels above that of the 8x8x8 around; mask: above lung."""
    ball = np.zeros((1, 1, 8, 8, 8), np.float32) - 1 / 8**3
    ball[:, :, 3:5, 3:5, 3:5] += 1 / 8
    weights = {
        "low": np.float32(-1000), "high": np.float32(400), "k": ball * 0.05,
        "mask_w": np.full((1, 1, 1, 1, 1), 0.02, np.float32), "mask_b": np.array([8], np.float32),
        "heat_b": np.array([-4], np.float32),
        "texture_w": np.array([1, -1, 0], np.float32).reshape(3, 1, 1, 1, 1),
    }  # fmt: skip
    nodes = [
        helper.make_node("Clip", ["image", "low", "high"], ["x"]),
        helper.make_node("Conv", ["x", "mask_w", "mask_b"], ["mask"]),
        helper.make_node("Conv", ["x", "k", "heat_b"], ["heat"], pads=[3] * 6, strides=[2] * 3),
        helper.make_node("Conv", ["heat", "texture_w"], ["texture"]),
    ]

    def value(name, channels, *names):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, *names])

    half = [f"{axis}/2" for axis in "dhw"]
    graph = helper.make_graph(
        nodes, "medical", [value("image", 1, *"dhw")],
        [value("mask", 1, *"dhw"), value("heat", 1, *half), value("texture", 3, *half)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def statement(**parameters):
    definition = {"internalParameters": parameters}
    return json.dumps({"predicate": {"buildDefinition": definition}}).encode()


SIZES = statement(multiple=2)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    signer = new_key(home)
    content = model()
    image = np.random.default_rng(1).uniform(-1000, 400, (8, 1, 16, 16, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = ("mask", "heat", "texture")
    golden = dict(zip(names, session.run(list(names), {"image": image}), strict=True))
    vectors = {"input/image": image, **{f"output/{k}": v for k, v in golden.items()}}

    def make(path, targets=(TARGET, OPENVINO), provenance=SIZES, **manifest):
        contents = {
            "model/model.onnx": content,
            "pipeline/pre.json": b"[]",
            "pipeline/post.json": b"[]",
            "selftest/vectors.npz": write_npz(vectors),
            "provenance.json": provenance,
            **{f"targets/{t.id}.json": json.dumps(t.to_json()).encode() for t in targets},
        }

        def tensor(name, channels, *axes):
            return {"name": name, "dtype": "float32", "shape": ["n", channels, *axes]}

        header = {
            "name": "deepkits-medical", "version": "0.3.0", "channel": "stable",
            "created": 1_700_000_000, "expires": None, "rollback_index": 0,
            "min_runtime": "0.1.0", "requires": {"memory_mib": 64, "disk_mib": 1},
            "model": "model/model.onnx", "targets": [t.id for t in targets],
            "license": "Apache-2.0", "intended_use": "Balls in a toy, in tests.",
            "inputs": [tensor("image", 1, "d", "h", "w")],
            "outputs": [tensor("mask", 1, "d", "h", "w"), tensor("heat", 1, "e", "i", "x"),
                        tensor("texture", 3, "e", "i", "x")],
            **manifest,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bundle(path, header, contents, {}, [signer])
        return path

    return SimpleNamespace(make=make, home=home, golden=golden, image=image)


@pytest.fixture(autouse=True)
def trusted(bundles, monkeypatch):
    monkeypatch.setenv("DEEPKITS_HOME", str(bundles.home))


def test_a_run_with_its_bundle_opens_as_a_network(bundles, tmp_path):
    run = tmp_path / "run"
    facts = statement(multiple=8, threshold=0.2, mask_threshold=0.4)
    bundles.make(run / "export" / "medical.ebundle", provenance=facts)
    network = open_network(run, threads=1)
    facts = network.facts
    assert (facts.name, facts.version, facts.multiple) == ("deepkits-medical", "0.3.0", 8)
    assert (facts.target, facts.precision) == ("x86_64-openvino-cpu", "float32")
    assert facts.runtime.startswith("openvino ")
    assert len(facts.sha256) == 64
    settings = network.settings(threads=2)
    assert (settings.multiple, settings.threshold, settings.mask_threshold) == (8, 0.2, 0.4)
    assert settings.threads == 2
    found = network({"image": bundles.image})
    for name, wanted in bundles.golden.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-3, rtol=1e-3)
    alone = network.heat({"image": bundles.image})
    assert set(alone) == {"heat"}
    np.testing.assert_allclose(alone["heat"], found["heat"], atol=1e-5)


def test_the_nodules_of_a_toy_are_found_through_a_bundle(bundles, toy, tmp_path):
    bundle = bundles.make(tmp_path / "medical.ebundle")
    network = open_network(bundle, threads=1)
    volume = toy.thorax((96, 96, 112), (1.25, 1.4, 1.4), balls=[(40, 50, 34, 4)])
    found = find_nodules(volume, network, network.settings(crop_mm=12.0))
    (place,) = volume.grid.to_patient(np.array([[40, 50, 34]]))
    assert min(np.linalg.norm(f.centre_mm - place) for f in found.findings) < 1


def test_the_fastest_target_of_this_processor_is_taken(monkeypatch):
    targets = {target.id: target for target in (TARGET, OPENVINO, BFLOAT16)}
    monkeypatch.setattr(network_module, "machine", lambda: "x86_64")
    monkeypatch.setattr(network_module, "processor_flags", lambda: frozenset(["avx512_bf16"]))
    assert fastest_target(targets) == BFLOAT16.id
    monkeypatch.setattr(network_module, "processor_flags", lambda: frozenset(["avx2"]))
    assert fastest_target(targets) == OPENVINO.id
    assert fastest_target({TARGET.id: TARGET}) == TARGET.id


def test_a_run_without_a_bundle_names_the_command(tmp_path):
    with pytest.raises(ValueError, match=r"python -m kits\.medical\.export run="):
        find_bundle(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        open_network(tmp_path / "nothing.ebundle")


def test_a_bundle_of_something_else_is_refused(bundles, tmp_path):
    tensors = [{"name": "score", "dtype": "float32", "shape": ["n"]}]
    bundle = bundles.make(tmp_path / "other.ebundle", outputs=tensors)
    with pytest.raises(ValueError, match="give a bundle of the medical kit"):
        open_network(bundle)


def test_a_bundle_that_does_not_say_its_multiple_is_refused(bundles, tmp_path):
    bundle = bundles.make(tmp_path / "old.ebundle", provenance=statement(features=[]))
    with pytest.raises(ValueError, match="export it again"):
        open_network(bundle)
