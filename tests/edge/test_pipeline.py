import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from edge.arrays import write_npz
from edge.bundle import Bundle
from edge.device import check_facts, choose_target
from edge.ops import run_steps
from edge.pipeline import Pipeline
from edge.selftest import run_self_test
from edge.target import machine

PHOTO = np.random.default_rng(2).random((2, 12, 10, 3), dtype=np.float32)
EXACT = 1e-5  # float32 sums in another order


def opened(bundles, path, device="auto", **changes):
    made = bundles.make(path / "b.ebundle", **changes)
    return Pipeline.open(Bundle.open(made, bundles.trust), device, threads=1)


@pytest.fixture(scope="module")
def pipeline(bundles, small_bundle):
    return Pipeline.open(Bundle.open(small_bundle, bundles.trust), threads=1)


def test_a_sample_goes_through_steps_model_and_steps(pipeline, bundles):
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    image = ((torch.from_numpy(PHOTO) - mean) / std).permute(0, 3, 1, 2)
    image = functional.interpolate(image, (8, 8), mode="bilinear", align_corners=False)
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    logits = functional.conv2d(image, torch.from_numpy(weight), padding=1).relu().mean((2, 3))
    found = pipeline.predict({"photo": PHOTO})
    assert list(found) == ["score", "class"]
    np.testing.assert_allclose(found["score"], logits.softmax(-1), atol=EXACT)
    assert np.array_equal(found["class"], logits.argmax(-1))
    assert pipeline.target.id == "portable-onnx"
    assert pipeline.backend.facts.provider == "CPUExecutionProvider"
    assert pipeline.self_test.num_rows == 8
    assert pipeline.self_test.max_error["logits"] < EXACT


@pytest.mark.skipif(machine() != "x86_64", reason="these targets are of x86-64")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_each_target_gives_the_same_within_its_tolerance(
    bundles, small_bundle, pipeline, precision
):
    device = "x86_64-openvino-cpu" + ("-bf16" if precision == "bfloat16" else "")
    other = Pipeline.open(Bundle.open(small_bundle, bundles.trust), device, threads=1)
    assert other.backend.facts.precision == precision
    error = other.predict({"photo": PHOTO})["score"] - pipeline.predict({"photo": PHOTO})["score"]
    assert np.abs(error).max() < {"float32": EXACT, "bfloat16": 0.05}[precision]


def test_a_path_is_verified_first(trusted, tmp_path):
    path = trusted.make(tmp_path / "b.ebundle")
    assert Pipeline.open(path).predict({"photo": PHOTO})["class"].shape == (2,)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"copy the bundle again|not canonical|refused|is not"):
        Pipeline.open(path)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({}, "input 'photo' is missing or unknown; the inputs are photo"),
        ({"image": PHOTO}, "input 'image' is missing or unknown"),
        ({"photo": PHOTO, "z": PHOTO}, "input 'z' is missing or unknown"),
        ({"photo": PHOTO.tolist()}, "input 'photo' is a list, not a numpy array"),
        ({"photo": PHOTO.astype(np.float64)}, "'photo' has dtype=float64, it must be float32"),
        ({"photo": PHOTO[0]}, r"'photo' has shape=\(12, 10, 3\), it must have 4 axes"),
        ({"photo": PHOTO[:, :, :9]}, r"must be \(batch, height, 10, 3\)"),
    ],
)
def test_a_sample_that_is_not_the_manifests_is_refused_by_name(pipeline, sample, message):
    with pytest.raises(ValueError, match=message):
        pipeline.predict(sample)


def test_inputs_that_share_an_axis_share_its_size(pipeline):
    tensor = pipeline.inputs[0]
    two = replace(pipeline, inputs=(tensor, replace(tensor, name="mask")))
    with pytest.raises(ValueError, match="'mask' has batch=1, input 'photo' has batch=2"):
        two.predict({"photo": PHOTO, "mask": PHOTO[:1]})


def wrong_vectors(bundles, change):
    arrays = {name: array.copy() for name, array in bundles.vectors.items()}
    change(arrays)
    return {"files": {"selftest/vectors.npz": write_npz(arrays)}}


def put(name, where, value):
    def change(arrays):
        arrays[name][where] = value

    return change


def move(old, new):
    def change(arrays):
        arrays[new] = arrays.pop(old)

    return change


def steps(path, *content):
    return {"files": {f"pipeline/{path}.json": json.dumps(content).encode()}}


def outputs(name, dtype, *shape):
    return {"manifest": {"outputs": [{"name": name, "dtype": dtype, "shape": list(shape)}]}}


# What is wrong in a signed bundle -> part of the message; `open` refuses each before any sample.
FAULTS = {
    "another result": (put("output/logits", (3, 1), 9.0), "output 'logits' is off by"),
    "slightly another result": (
        lambda arrays: np.add(arrays["output/logits"], 1e-3, out=arrays["output/logits"]),
        "is off by 0.001, allowed is",
    ),
    "NaN in the golden outputs": (put("output/logits", (0, 0), np.nan), "not infinite or NaN"),
    "NaN out of the model": (put("input/image", (0, 0, 0, 0), np.nan), "is NaN or infinite where"),
    "infinity out of the model": (put("input/image", (0, 0), np.inf), "is NaN or infinite where"),
    "another shape": (
        lambda arrays: arrays.update({"output/logits": arrays["output/logits"][:, :3]}),
        r"has shape (8, 4), the bundle says (8, 3)",
    ),
    "fewer rows": (
        lambda arrays: arrays.update({"input/image": arrays["input/image"][:7]}),
        r"has shape (7, 4), the bundle says (8, 4)",
    ),
    "too few rows": (
        lambda arrays: arrays.update({name: array[:5] for name, array in arrays.items()}),
        "has 5 rows, it needs 8",
    ),
    "another input": (move("input/image", "input/picture"), "has inputs picture, the model of"),
    "another output": (move("output/logits", "output/odds"), "has outputs odds, the model of"),
    "no outputs": (lambda arrays: arrays.pop("output/logits"), "has outputs none"),
    "inputs of another type": (
        lambda arrays: arrays.update({"input/image": arrays["input/image"].astype(np.float64)}),
        "could not run the model",
    ),
    "vectors that are pickles": (
        {"files": {"selftest/vectors.npz": b"\x80\x04N."}},
        "npz",
    ),
    "unknown step": (steps("pre", {"op": "eval"}), "op='eval' is not one of"),
    "unknown parameter": (steps("post", {"op": "softmax", "dim": 1}), "no parameter 'dim'"),
    "steps that are no list": (
        {"files": {"pipeline/pre.json": b'{"op": "clip"}'}},
        "steps=dict is not a list",
    ),
    "steps that are no JSON": ({"files": {"pipeline/pre.json": b"[{]"}}, "is not JSON"),
    "post step without its array": (
        steps("post", {"op": "softmax", "input": "odds", "output": "score"}),
        "input='odds' is not one of logits",
    ),
    "output nobody makes": (
        outputs("fraud", "float32", "batch", 4),
        "manifest.outputs has 'fraud'",
    ),
    "output of another type": (
        outputs("score", "float64", "batch", 4),
        "'score' has dtype=float32",
    ),
    "output of another rank": (outputs("score", "float32", "batch"), "and 2 axes, the manifest"),
    "output of another size": (outputs("score", "float32", "batch", 5), "size 4, the manifest"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_open_refuses_a_bundle_that_contradicts_itself(bundles, tmp_path, fault):
    change, message = FAULTS[fault]
    changes = wrong_vectors(bundles, change) if callable(change) else change
    with pytest.raises(ValueError) as raised:
        opened(bundles, tmp_path, **changes)
    assert message in str(raised.value)


TARGET_FAULTS = {
    "precision": ({"precision": "int8"}, "precision='int8', model/model.onnx holds float32"),
    "provider": ({"accelerator": "ascend"}, "provider='CANNExecutionProvider'"),
    "backend": ({"backend": "moon"}, "needs backend moon"),
    "architecture": ({"arch": "riscv64"}, "is for riscv64, this machine is"),
    "state": ({"state": "contract-only"}, "is contract-only: the bundle holds its recipe"),
    "runtime too old": ({"runtime": ">=99.1,<100"}, "is for onnxruntime >=99.1,<100, installed is"),
    "runtime in no form": ({"runtime": "new"}, "runtime='new', not as"),
    "model elsewhere": ({"model": "model/other.onnx"}, "which is not inside"),
    "unknown option": ({"options": {"fast": True}}, "has option 'fast'"),
}


@pytest.mark.parametrize("fault", TARGET_FAULTS)
def test_open_refuses_a_target_that_cannot_be_kept(bundles, tmp_path, fault):
    changes, message = TARGET_FAULTS[fault]
    made = bundles.target(**{"id": "wanted", **changes})
    with pytest.raises(ValueError) as raised:
        opened(bundles, tmp_path, "wanted", targets=[bundles.target(), made])
    assert message in str(raised.value)


def test_auto_takes_the_first_target_that_can_run(bundles, monkeypatch):
    listed = [
        bundles.target(id="a", state="contract-only"),
        bundles.target(id="b", arch="riscv64"),
        bundles.target(id="c", backend="moon"),
        bundles.target(id="d", backend="openvino"),
        bundles.target(id="e"),
    ]
    targets = {target.id: target for target in listed}
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choose_target(targets, "auto").id == "e"
    with pytest.raises(ValueError) as raised:
        choose_target({id_: targets[id_] for id_ in "abcd"}, "auto")
    for part in (
        "a is contract-only",
        "b is for riscv64",
        "needs backend moon",
        "d needs openvino",
    ):
        assert part in str(raised.value)
    with pytest.raises(ValueError, match="device='gpu' is not one of auto, a, b, c, d, e"):
        choose_target(targets, "gpu")


def test_a_named_target_whose_runtime_is_missing_names_the_extra(
    bundles, small_bundle, monkeypatch
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    bundle = Bundle.open(small_bundle, bundles.trust)
    with pytest.raises(ModuleNotFoundError, match="openvino is not installed"):
        Pipeline.open(bundle, "x86_64-openvino-cpu")


@pytest.mark.parametrize(
    ("wanted", "is_in"),
    [
        ("", True),
        (">=1.24.4", True),
        (">=1.24.4,<2", True),
        ("==1.32.0", True),
        ("<1.32", False),
        (">1.32", False),
        ("!=1.32.0", False),
        ("<=1.31.9", False),
    ],
)
def test_the_version_of_the_runtime_is_in_the_targets_range(pipeline, wanted, is_in):
    facts = replace(pipeline.backend.facts, runtime="1.32.0")
    target = replace(pipeline.target, runtime=wanted)
    if is_in:
        check_facts(facts, target)
        return
    with pytest.raises(ValueError, match=r"installed is 1\.32\.0"):
        check_facts(facts, target)


def test_a_backend_that_took_another_precision_is_refused(pipeline):
    facts = replace(pipeline.backend.facts, precision="bfloat16")
    with pytest.raises(ValueError, match="loaded is onnxruntime in bfloat16"):
        check_facts(facts, pipeline.target)


def test_the_self_test_of_a_model_of_one_row_goes_row_by_row(pipeline, bundles):
    seen = []

    class OneRow:
        facts, input_names, output_names = pipeline.backend.facts, ("image",), ("logits",)

        def run(self, inputs):
            seen.append(len(inputs["image"]))
            return pipeline.backend.run(inputs)

    fixed = replace(pipeline.inputs[0], shape=(1, "height", 10, 3))
    tested, _ = run_self_test(OneRow(), bundles.vectors, pipeline.target, (fixed,))
    assert (seen, tested.num_rows) == ([1] * 8, 8)


def test_steps_are_optional(bundles, tmp_path):
    tensors = {
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 4]}],
    }
    none = {"pipeline/pre.json": b"[]", "pipeline/post.json": b"[]"}
    plain = opened(bundles, tmp_path, files=none, manifest=tensors)
    found = plain.predict({"image": bundles.vectors["input/image"]})
    np.testing.assert_allclose(found["logits"], bundles.vectors["output/logits"], atol=EXACT)


def test_pre_steps_that_do_not_make_the_models_input_say_so(bundles, tmp_path):
    made = opened(bundles, tmp_path, **steps("pre", {"op": "clip", "low": 0}))
    with pytest.raises(ValueError, match=r"pre\.json gives photo, the model needs 'image'"):
        made.predict({"photo": PHOTO})


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_positive(bundles, small_bundle, threads):
    with pytest.raises(ValueError, match=f"threads={threads} is below 1"):
        Pipeline.open(Bundle.open(small_bundle, bundles.trust), threads=threads)


def test_the_sample_is_left_as_it_was(pipeline):
    before = PHOTO.copy()
    pipeline.predict({"photo": PHOTO})
    assert np.array_equal(PHOTO, before)
    assert run_steps([], {"photo": PHOTO})["photo"] is PHOTO


@pytest.mark.parametrize("device", ["portable-onnx", "x86_64-openvino-cpu"])
def test_a_part_gives_what_the_whole_gives_of_its_outputs(bundles, tmp_path, device):
    if device.startswith("x86_64") and machine() != "x86_64":
        pytest.skip("OpenVINO's target is for x86-64")
    whole = opened(bundles, tmp_path, device, files={"pipeline/post.json": b"[]"}, manifest={
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 4]}]
    })  # fmt: skip
    part = whole.part("logits")
    assert [output.name for output in part.outputs] == ["logits"]
    found, wanted = part.predict({"photo": PHOTO}), whole.predict({"photo": PHOTO})
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=EXACT)
    with pytest.raises(ValueError, match="'mask' is not one of logits"):
        whole.part("mask")


def test_steps_behind_the_model_need_the_whole(pipeline):
    with pytest.raises(ValueError, match="use the whole pipeline"):
        pipeline.part("score")
