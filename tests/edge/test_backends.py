import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.backends import load_backend
from edge.onnx_file import describe_onnx
from edge.target import Target, Tolerance

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((8, 3, 3, 3)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 3, 16, 16)).astype(np.float32)
# Sums of 27 products of about 1 in float32, in any order.
EXACT = 1e-5


def model(nodes=None, weights=(), kind=TensorProto.FLOAT, shape=("batch", 3, 16, 16)):
    nodes = nodes or [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    weights = list(weights) or [numpy_helper.from_array(WEIGHT, "w")]
    x = helper.make_tensor_value_info("x", kind, list(shape))
    y = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


CONV = model().SerializeToString()


def half_model():
    weights = [numpy_helper.from_array(WEIGHT.astype(np.float16), "w")]
    return model(weights=weights, kind=TensorProto.FLOAT16).SerializeToString()


def quantised_model():
    scale = numpy_helper.from_array(np.float32(0.05), "scale")
    zero = numpy_helper.from_array(np.uint8(128), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = [numpy_helper.from_array(WEIGHT, "w"), scale, zero]
    return model(nodes, weights).SerializeToString()


def external_model(location="net.data"):
    made = onnx.load_from_string(CONV)
    tensor = made.graph.initializer[0]
    content = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return made.SerializeToString(), content


def target(backend="onnxruntime", **changes):
    made = Target(
        id="here",
        arch="any",
        backend=backend,
        accelerator="cpu",
        precision="float32",
        model="model/net.onnx",
        state="verified",
        tolerance=Tolerance(EXACT, 0.0, "order of sums"),
    )
    return replace(made, **changes)


def load(content=CONV, backend="onnxruntime", beside=None, threads=1, **changes):
    made = target(backend, **changes)
    return load_backend({made.model: content, **(beside or {})}, made, threads=threads)


@pytest.fixture(scope="module")
def expected():
    session = onnxruntime.InferenceSession(CONV, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": IMAGE})[0]


@pytest.fixture(scope="module")
def openvino_files(tmp_path_factory):
    openvino = pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("openvino")
    made = openvino.Core().read_model(CONV, b"")
    openvino.save_model(made, folder / "net.xml", compress_to_fp16=False)
    return {
        f"model/net.{suffix}": (folder / f"net.{suffix}").read_bytes() for suffix in ("xml", "bin")
    }


def test_onnxruntime_runs_and_tells_what_on(expected):
    loaded = load()
    assert np.array_equal(loaded.run({"x": IMAGE})["y"], expected)
    assert (loaded.input_names, loaded.output_names) == (("x",), ("y",))
    facts = loaded.facts
    assert facts.runtime == onnxruntime.__version__
    assert (facts.provider, facts.precision) == ("CPUExecutionProvider", "float32")


def test_onnxruntime_takes_outside_weights_from_memory(expected, tmp_path, monkeypatch):
    content, weights = external_model()
    monkeypatch.chdir(tmp_path)
    loaded = load(content, beside={"model/net.data": weights})
    assert np.array_equal(loaded.run({"x": IMAGE})["y"], expected)


def test_onnxruntime_does_not_look_for_weights_in_the_working_folder(tmp_path, monkeypatch):
    content, weights = external_model()
    (tmp_path / "net.data").write_bytes(weights)
    monkeypatch.chdir(tmp_path)
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=r"keeps weights in 'net\.data'"):
            load(content, backend)


@pytest.mark.parametrize("level", ["disable", "basic", "extended", "all"])
def test_onnxruntime_takes_the_level_of_the_target(level, expected):
    loaded = load(options={"graph_optimization_level": level})
    assert np.abs(loaded.run({"x": IMAGE})["y"] - expected).max() < EXACT


def test_openvino_computes_in_float32_when_told_so(expected):
    loaded = load(backend="openvino")
    assert np.abs(loaded.run({"x": IMAGE})["y"] - expected).max() < EXACT
    assert (loaded.facts.provider, loaded.facts.precision) == ("CPU", "float32")
    assert loaded.run({"x": IMAGE[:1]})["y"].shape == (1, 8, 16, 16)


def test_openvino_in_bfloat16_is_another_precision(expected):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ValueError, match="asks for precision='bfloat16'"):
            load(backend="openvino", precision="bfloat16")
        return
    loaded = load(backend="openvino", precision="bfloat16")
    assert loaded.facts.precision == "bfloat16"
    error = np.abs(loaded.run({"x": IMAGE})["y"] - expected).max()
    assert EXACT < error < 0.1


def test_openvino_reads_its_own_format(openvino_files, expected):
    made = target("openvino", model="model/net.xml")
    loaded = load_backend(openvino_files, made, threads=1)
    assert loaded.output_names == ("y",)
    assert np.abs(loaded.run({"x": IMAGE})["y"] - expected).max() < EXACT


def test_openvino_tells_quantised_models_apart():
    assert load(quantised_model(), "openvino", precision="int8").facts.precision == "int8"


def test_openvino_answers_threads_one_after_another(expected):
    loaded = load(backend="openvino")
    wrong = []

    def ask(scale):
        for _ in range(20):
            found = loaded.run({"x": IMAGE * np.float32(scale)})["y"]
            if np.abs(found - expected * scale).max() > 10 * EXACT:
                wrong.append(scale)

    threads = [threading.Thread(target=ask, args=(scale,)) for scale in (1, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_outputs_stay_when_the_next_sample_runs():
    for backend in ("onnxruntime", "openvino"):
        loaded = load(backend=backend)
        first = loaded.run({"x": IMAGE})["y"]
        kept = first.copy()
        loaded.run({"x": -IMAGE})
        assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("content", "precision"),
    [
        (CONV, "float32"),
        (half_model(), "float16"),
        (quantised_model(), "int8"),
        (external_model()[0], "float32"),
    ],
)
def test_onnx_files_tell_their_precision(content, precision):
    facts = describe_onnx(content)
    assert (facts.precision, facts.inputs, facts.outputs) == (precision, ("x",), ("y",))


def test_onnx_files_tell_their_precision_in_branches():
    inner = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["b", "s", "z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.UINT8, None)],
    )
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    assert describe_onnx(model([branch]).SerializeToString()).precision == "int8"


# What goes wrong -> a part of the message; nothing here may load, nor fall back.
GARBAGE = b"\x7fELF" + bytes(range(256)) * 4
FAULTS = {
    "provider without hardware": (
        {"options": {"provider": "CUDAExecutionProvider"}},
        "provider='CUDAExecutionProvider'",
    ),
    "provider of another build": (
        {"options": {"provider": "CANNExecutionProvider"}},
        "provider='CANNExecutionProvider'",
    ),
    "accelerator that is not there": (
        {"accelerator": "tensorrt"},
        "provider='TensorrtExecutionProvider', this onnxruntime",
    ),
    "accelerator nobody knows": ({"accelerator": "moon"}, "provider='moon'"),
    "optimisation level": ({"options": {"graph_optimization_level": "max"}}, "='max', not one of"),
    "unknown option": ({"options": {"providers": []}}, "has option 'providers'"),
    "session entry onnxruntime refuses": (
        {"options": {"session_config": {"k" * 2000: "1"}}},
        "session_config",
    ),
    "float32 called int8": (
        {"precision": "int8"},
        "precision='int8', model/net.onnx holds float32",
    ),
    "float32 called bfloat16": ({"precision": "bfloat16"}, "holds float32"),
    "float16 called float32": ({"content": half_model()}, "holds float16"),
    "int8 called float32": ({"content": quantised_model()}, "holds int8"),
    "not a model": ({"content": GARBAGE}, "not an ONNX file"),
    "nothing": ({"content": b""}, "not an ONNX file"),
    "cut off": ({"content": CONV[:-40]}, "was cut off"),
    "operator nobody knows": (
        {"content": model([helper.make_node("Moon", ["x"], ["y"])]).SerializeToString()},
        "cannot load model/net.onnx",
    ),
    "weights missing": ({"content": external_model()[0]}, "'net.data', which is not beside it"),
    "weights in another folder": (
        {"content": external_model("../../etc/net.data")[0]},
        "which is not beside it",
    ),
    "weights too short": (
        {"content": external_model()[0], "beside": {"model/net.data": b"1234"}},
        "cannot load model/net.onnx",
    ),
    "backend nobody knows": ({"backend": "moon"}, "backend='moon', this version has"),
    "openvino: float16 on a CPU": (
        {"backend": "openvino", "precision": "float16"},
        "precision='float16', openvino took",
    ),
    "openvino: precision nobody knows": (
        {"backend": "openvino", "precision": "fp8"},
        "precision='fp8', not one of",
    ),
    "openvino: float32 called int8": (
        {"backend": "openvino", "precision": "int8"},
        "is not quantised",
    ),
    "openvino: int8 called float32": (
        {"backend": "openvino", "content": quantised_model()},
        "is quantised",
    ),
    "openvino: accelerator that is not there": (
        {"backend": "openvino", "accelerator": "npu"},
        "accelerator='npu', openvino has CPU here",
    ),
    "openvino: device that chooses by itself": (
        {"backend": "openvino", "accelerator": "AUTO"},
        "accelerator='AUTO'",
    ),
    "openvino: unknown option": (
        {"backend": "openvino", "options": {"device": "CPU"}},
        "has option 'device'",
    ),
    "openvino: unknown property": (
        {"backend": "openvino", "options": {"properties": {"MOON": 1}}},
        "cannot compile",
    ),
    "openvino: not a model": ({"backend": "openvino", "content": GARBAGE}, "not an ONNX file"),
    "openvino: operator nobody knows": (
        {
            "backend": "openvino",
            "content": model([helper.make_node("Moon", ["x"], ["y"])]).SerializeToString(),
        },
        "openvino cannot",
    ),
    "openvino: names of another model": (
        {"backend": "openvino", "options": {"outputs": ["z"]}},
        "where 'z' is expected",
    ),
    "openvino: weights missing": (
        {"backend": "openvino", "model": "model/net.xml"},
        "model/net.bin is missing",
    ),
    "openvino: not an .xml": (
        {
            "backend": "openvino",
            "model": "model/net.xml",
            "content": GARBAGE,
            "beside": {"model/net.bin": b""},
        },
        "openvino cannot read",
    ),
    "tensorrt_rtx: not an engine": (
        {"backend": "tensorrt_rtx", "content": GARBAGE, "model": "model/net.engine"},
        "cannot open model/net.engine on this machine",
    ),
    "tensorrt_rtx: option": (
        {"backend": "tensorrt_rtx", "options": {"x": 1}},
        "has option 'x', not one of",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_loads_silently_as_something_else(fault):
    arguments, message = FAULTS[fault]
    if arguments.get("backend") == "tensorrt_rtx":
        pytest.importorskip("tensorrt_rtx")
    with pytest.raises(ValueError) as raised:
        load(**arguments)
    assert message in str(raised.value)


def test_openvino_refuses_weights_that_are_too_short(openvino_files):
    files = openvino_files | {"model/net.bin": openvino_files["model/net.bin"][:100]}
    with pytest.raises(ValueError, match="openvino cannot read"):
        load_backend(files, target("openvino", model="model/net.xml"), threads=1)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_gives_way_to_the_cpu_is_refused(monkeypatch):
    """As onnxruntime-cann without its driver: listed as available, and gone after loading."""
    listed = ["CANNExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.raises(ValueError, match=r"'CANNExecutionProvider', onnxruntime fell back to CPU"):
        load(options={"provider": "CANNExecutionProvider"})


INPUTS = {
    "another name": {"z": IMAGE},
    "one too many": {"x": IMAGE, "z": IMAGE},
    "none": {},
    "another type": {"x": IMAGE.astype(np.float64)},
    "integers": {"x": IMAGE.astype(np.int32)},
    "another rank": {"x": IMAGE[0]},
    "another size": {"x": IMAGE[:, :2]},
}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("fault", INPUTS)
def test_inputs_of_another_model_are_refused(backend, fault):
    with pytest.raises(ValueError, match=r"run the model|are not the model's|has dtype"):
        load(backend=backend).run(INPUTS[fault])


def test_tensorrt_rtx_builds_here_and_refuses_to_run_without_a_card():
    trt = pytest.importorskip("tensorrt_rtx")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    x = network.add_input("x", trt.float32, (1, 3))
    layer = network.add_activation(x, trt.ActivationType.RELU)
    network.mark_output(layer.get_output(0))
    engine = bytes(builder.build_serialized_network(network, builder.create_builder_config()))
    assert len(engine) > 1000
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a card here")
    with pytest.raises(ValueError, match=r"cudaError 35.*needs an NVIDIA RTX card, its driver"):
        load(engine, "tensorrt_rtx", model="net.engine", state="built")


@pytest.mark.parametrize(
    ("backend", "extra"),
    [("onnxruntime", "edge"), ("openvino", "openvino"), ("tensorrt_rtx", "rtx")],
)
def test_a_runtime_that_is_not_installed_is_named(backend, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{backend} is not installed.*{extra}"):
        load(backend=backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_runtime_reports_to_nobody(tmp_path, backend):
    pytest.importorskip(backend)
    (tmp_path / "net.onnx").write_bytes(CONV)
    (tmp_path / "home").mkdir()
    script = """
import json, socket, sys
asked = []
def refuse(*arguments, **names):
    asked.append(arguments)
    raise OSError("no network in this test")
socket.create_connection = socket.getaddrinfo = socket.socket.connect = refuse
import numpy
from edge.backends import load_backend
from edge.target import Target
content = json.loads(sys.argv[1])
model = open("net.onnx", "rb").read()
loaded = load_backend({content["model"]: model}, Target.from_json(content), threads=1)
loaded.run({"x": numpy.ones((1, 3, 16, 16), numpy.float32)})
print(asked, sys.modules.get("openvino_telemetry"))
"""
    environment = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"),
        "PATH": os.environ["PATH"],
    }
    result = subprocess.run(
        [sys.executable, "-c", script, json.dumps(target(backend).to_json())],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (0, "[] None\n"), result.stderr
    # Neither a cache nor a consent file.
    assert not list((tmp_path / "home").rglob("*"))
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["net.onnx"]
