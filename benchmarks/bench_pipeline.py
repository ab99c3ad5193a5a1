"""What `Pipeline.predict` costs over the bare runtime, for a model of more than 5 ms.

Both run on one thread, in turns, the first of each pair changing; a row holds the quartiles of the
ratio of each pair, of wall time and of the process's CPU time, which other processes disturb less.
"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.train.run import environment, write_atomic
from edge.arrays import write_npz
from edge.bundle import Bundle, write_bundle
from edge.keys import new_key
from edge.pipeline import Pipeline
from edge.target import Target, Tolerance, machine
from edge.trust import Trust

RESULTS = Path(__file__).parent / "results" / "pipeline.json"
CHANNELS, SIZE_PX, LAYERS = 32, 64, 12
REPEATS = 200
LIMIT = 1.05
SHAPE = ["batch", 3, SIZE_PX, SIZE_PX]

pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def results():
    """Filled by the benchmarks, written at the end, printed with -s."""
    found = {
        "model": f"{LAYERS} convolutions of 3 x 3, {CHANNELS} channels, {SIZE_PX} x {SIZE_PX} px",
        "threads": 1,
        "machine": {k: v for k, v in environment().items() if k not in ("command", "packages")},
        "versions": {"numpy": np.__version__, "onnxruntime": onnxruntime.__version__},
    }
    yield found
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def build_model():
    rng = np.random.default_rng(0)
    nodes, weights, read = [], [], "image"
    for layer in range(LAYERS):
        before = 3 if layer == 0 else CHANNELS
        weight = rng.standard_normal((CHANNELS, before, 3, 3)) / np.sqrt(9 * before)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{layer}"))
        nodes.append(helper.make_node("Conv", [read, f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        read = "features" if layer == LAYERS - 1 else f"r{layer}"
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [read]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)
    shape = ["batch", CHANNELS, SIZE_PX, SIZE_PX]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "convolutions", [image], [features], weights)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    """The model in a signed bundle, without steps, for both runtimes."""
    folder = tmp_path_factory.mktemp("bundle")
    image = np.random.default_rng(1).standard_normal((8, *SHAPE[1:]), dtype=np.float32)
    golden = bare_onnxruntime(model)({"image": image})["features"]
    tolerance = Tolerance(1e-4, 1e-4, "order of sums in float32")
    targets = {
        name: Target(
            f"{machine()}-{name}-cpu",
            machine(),
            name,
            *("cpu", "float32", "model/model.onnx", "verified", tolerance),
        )
        for name in ("onnxruntime", "openvino")
    }
    ids = [target.id for target in targets.values()]
    manifest = {
        "name": "convolutions",
        "version": "1.0.0",
        "channel": "test",
        "created": 0,
        "expires": None,
        "rollback_index": 0,
        "min_runtime": "0.1.0",
        "requires": {"memory_mib": 1, "disk_mib": 1},
        "model": "model/model.onnx",
        "inputs": [{"name": "image", "dtype": "float32", "shape": SHAPE}],
        "outputs": [
            {"name": "features", "dtype": "float32", "shape": ["batch", CHANNELS, *SHAPE[2:]]}
        ],
        "targets": ids,
        "license": "Apache-2.0",
        "intended_use": "a benchmark",
    }
    files = {f"targets/{t.id}.json": json.dumps(t.to_json()).encode() for t in targets.values()}
    files["model/model.onnx"] = model
    files["selftest/vectors.npz"] = write_npz({"input/image": image, "output/features": golden})
    path = folder / "convolutions.ebundle"
    write_bundle(path, manifest, files, {}, [new_key(folder)])
    return Bundle.open(path, Trust.load(folder)), targets


def bare_onnxruntime(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda sample: {"features": session.run(None, sample)[0]}


def bare_openvino(model):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    settings["PERFORMANCE_HINT"] = "LATENCY"
    request = core.compile_model(core.read_model(model, b""), "CPU", settings)
    request = request.create_infer_request()
    return lambda sample: {"features": np.array(request.infer([sample["image"]])[0])}


def measure(bare, predict, sample):
    """Run both in turns; times in ms and quartiles of the ratio of each pair."""
    jobs = {"bare": bare, "pipeline": predict}
    times = {name: [] for name in jobs}
    for turn in range(REPEATS + 10):
        for name in sorted(jobs, reverse=turn % 2 == 1):
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            jobs[name](sample)
            wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
            times[name].append((wall / 1e6, cpu / 1e6))
    row = {"repeats": REPEATS, "load_average": round(os.getloadavg()[0], 1)}
    for at, clock in enumerate(("wall", "cpu")):
        first, second = (np.array(times[name])[10:, at] for name in ("bare", "pipeline"))
        quartiles = np.quantile(second / first, (0.25, 0.5, 0.75)).round(4).tolist()
        row[f"{clock}_ms"] = {
            name: round(float(np.median(values)), 3)
            for name, values in (("bare", first), ("pipeline", second))
        }
        row[f"{clock}_ratio"] = dict(
            zip(("quartile", "median", "quartile_3"), quartiles, strict=True)
        )
    return row


@pytest.mark.parametrize(
    ("name", "bare"), [("onnxruntime", bare_onnxruntime), ("openvino", bare_openvino)]
)
def test_predict_over_the_bare_runtime(model, bundle, results, name, bare):
    opened, targets = bundle
    pipeline = Pipeline.open(opened, targets[name].id, threads=1)
    image = np.random.default_rng(2).standard_normal((1, *SHAPE[1:]), dtype=np.float32)
    session = bare(model)
    found = pipeline.predict({"image": image})["features"]
    # One runtime, the same settings: equal to the last bit.
    assert np.array_equal(found, session({"image": image})["features"])
    row = results[name] = measure(session, pipeline.predict, {"image": image})
    assert row["cpu_ms"]["bare"] >= 5
    assert row["cpu_ratio"]["median"] <= LIMIT


def test_predict_around_a_model_of_no_cost(bundle, results):
    """What checking the inputs and passing arrays on costs, in microseconds."""
    opened, targets = bundle
    pipeline = Pipeline.open(opened, targets["onnxruntime"].id, threads=1)
    image = np.zeros((1, *SHAPE[1:]), np.float32)
    answer = pipeline.backend.run({"image": image})

    class Nothing:
        facts, input_names = pipeline.backend.facts, pipeline.backend.input_names
        output_names = pipeline.backend.output_names

        def run(self, _):
            return answer

    empty = replace(pipeline, backend=Nothing())
    times = []
    for _ in range(2000):
        started = time.perf_counter_ns()
        empty.predict({"image": image})
        times.append((time.perf_counter_ns() - started) / 1e3)
    results["predict_without_a_model_us"] = round(float(np.median(times)), 1)
