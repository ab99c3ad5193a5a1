"""A small detector of lines, frames with lines on them, and a line around both, for tests."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edge.arrays import write_npz
from edge.bundle import write_bundle
from edge.target import Target, Tolerance
from kits.defect.line.cells import CELL_PX, Cells, num_cells
from kits.defect.line.detect import DetectorConfig
from kits.defect.line.recipe import Recipe, Rule, write_recipe
from kits.defect.line.station import CameraConfig, Station, StationConfig

HEIGHT, WIDTH = 256, 384
GREY, DARK, BRIGHT = 128, 40, 220
CLASS_NAMES = ["scratch", "burr"]
FAKE_TRIAGE = "tests.kits.defect.line.lines:open_triage"


class SpanTriage:
    """Flags cells in which grey values lie far apart."""

    def __init__(self, recipe):
        self.shape = num_cells(recipe.height_px, recipe.width_px)

    def look(self, frame):
        rows, columns = self.shape
        padded = np.pad(
            frame,
            ((0, rows * CELL_PX - frame.shape[0]), (0, columns * CELL_PX - frame.shape[1])),
            "edge",
        )
        blocks = padded.reshape(rows, CELL_PX, columns, CELL_PX)
        span = blocks.max(axis=(1, 3)).astype(np.float32) - blocks.min(axis=(1, 3))
        return Cells(span > 40, span / 40)


def open_triage(recipe):
    return SpanTriage(recipe)


def detector_model(level=30.0, wait=0, fixed_px=None):
    """(n, 1, h, w) float32 in 0..1 "image" -> "boxes" (n, 2, 4), "scores" (n, 2, 2).

    A box around all that is darker than its surroundings by `level` grey values, and one around
    all that is brighter. `wait`: products of two matrices of 128 before it answers.
    """
    size = 15
    blur = np.full((size, size), 1 / size**2, np.float32)
    point = np.zeros_like(blur)
    point[size // 2, size // 2] = 1
    kernel = np.stack([blur - point, point - blur])[:, None]
    nodes = [
        helper.make_node("Pad", ["image", "margins"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel"], ["response"]),
        helper.make_node("Greater", ["response", "level"], ["is_off"]),
        helper.make_node("Cast", ["is_off"], ["off"], to=TensorProto.FLOAT),
    ]
    ends = []
    for name, axis in (("x", 2), ("y", 3)):
        nodes += [
            helper.make_node("ReduceMax", ["off", f"axis{axis}"], [f"{name}_off"], keepdims=0),
            helper.make_node("ArgMax", [f"{name}_off"], [f"{name}1"], axis=2, keepdims=1),
            helper.make_node("ArgMax", [f"{name}_off"], [f"{name}_last"], axis=2, keepdims=1,
                             select_last_index=1),
            helper.make_node("Add", [f"{name}_last", "one"], [f"{name}2"]),
        ]  # fmt: skip
        ends.append((f"{name}1", f"{name}2"))
    (x1, x2), (y1, y2) = ends
    nodes += [
        helper.make_node("Concat", [x1, y1, x2, y2], ["corners"], axis=2),
        helper.make_node("Cast", ["corners"], ["boxes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["response", "both"], ["peak"], keepdims=0),
        helper.make_node("ReduceMax", ["off", "both"], ["is_any"], keepdims=0),
        helper.make_node("Mul", ["peak", "is_any"], ["strength"]),
        helper.make_node("Div", ["strength", "twice"], ["raw"]),
        helper.make_node("Clip", ["raw", "none", "all"], ["score"]),
        helper.make_node("Unsqueeze", ["score", "last"], ["column"]),
        helper.make_node("Mul", ["column", "diagonal"], ["scores"]),
    ]
    weights = {
        "margins": np.array([0, 0, 7, 7, 0, 0, 7, 7]),
        "kernel": kernel,
        "level": np.array(level / 255, np.float32),
        "axis2": np.array([2]),
        "axis3": np.array([3]),
        "both": np.array([2, 3]),
        "one": np.array([1]),
        "twice": np.array(2 * level / 255, np.float32),
        "none": np.array(0, np.float32),
        "all": np.array(1, np.float32),
        "last": np.array([2]),
        "diagonal": np.eye(2, dtype=np.float32)[None],
    }
    if wait:
        nodes = _waiting(nodes, weights, wait)
    shape = ["n", 1, fixed_px or "h", fixed_px or "w"]
    graph = helper.make_graph(
        nodes,
        "lines",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 2, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2, 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _waiting(nodes, weights, wait):
    """The same model after products of matrices, each of a value that the runtime cannot know."""
    weights["eye"] = np.eye(128, dtype=np.float32)
    weights["times"] = np.array(wait)
    weights["go"] = np.array(True)  # noqa: FBT003
    weights["nil"] = np.array(0, np.float32)
    weights["all_axes"] = np.array([0, 1, 2, 3])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["held", "eye"], ["next"]),
            helper.make_node("Identity", ["cond"], ["again"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, [128, 128]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [128, 128]),
        ],
    )
    first = [
        helper.make_node("ReduceMax", ["image", "all_axes"], ["top"], keepdims=0),
        helper.make_node("Mul", ["eye", "top"], ["begin"]),
        helper.make_node("Loop", ["times", "go", "begin"], ["end"], body=body),
        helper.make_node("ReduceMax", ["end", "two_axes"], ["waited"], keepdims=0),
        helper.make_node("Mul", ["waited", "nil"], ["nothing"]),
        helper.make_node("Add", ["image", "nothing"], ["image_later"]),
    ]
    weights["two_axes"] = np.array([0, 1])
    nodes[0].input[0] = "image_later"
    return [*first, *nodes]


def save_onnx(path, **settings):
    path.write_bytes(detector_model(**settings))
    return path


def save_bundle(path, signer, *, version="1.0.0", nms=True, **settings):
    """The same as a signed bundle, with suppression behind it."""
    model = detector_model(**settings)
    image = np.random.default_rng(0).random((8, 1, 64, 96), np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    boxes, scores = session.run(None, {"image": image})
    target = Target(
        id="portable-onnx",
        arch="any",
        backend="onnxruntime",
        accelerator="cpu",
        precision="float32",
        model="model/model.onnx",
        state="verified",
        tolerance=Tolerance(1e-4, 1e-4, "order of sums in float32"),
        runtime=">=1.20",
    )
    step = {
        "op": "nms",
        "input": ["boxes", "scores"],
        "output": ["boxes", "scores", "classes"],
        "iou": 0.6,
        "score": 0.3,
        "max_boxes": 10,
    }
    shapes = {"boxes": ["n", 10, 4], "scores": ["n", 10], "classes": ["n", 10]}
    if not nms:
        shapes = {"boxes": ["n", 2, 4], "scores": ["n", 2, 2]}
    types = {"boxes": "float32", "scores": "float32", "classes": "int64"}
    write_bundle(
        path,
        {
            "name": "lines",
            "version": version,
            "channel": "stable",
            "created": 1_700_000_000,
            "expires": None,
            "rollback_index": 1,
            "min_runtime": "0.1.0",
            "requires": {"memory_mib": 64, "disk_mib": 1},
            "model": "model/model.onnx",
            "targets": [target.id],
            "license": "Apache-2.0",
            "intended_use": "Lines, in tests.",
            "inputs": [{"name": "image", "dtype": "float32", "shape": ["n", 1, "h", "w"]}],
            "outputs": [
                {"name": name, "dtype": types[name], "shape": shape}
                for name, shape in shapes.items()
            ],
        },
        {
            "model/model.onnx": model,
            "pipeline/pre.json": b"[]",
            "pipeline/post.json": json.dumps([step] if nms else []).encode(),
            "config/default.json": json.dumps(
                {"class_names": CLASS_NAMES, "score_threshold": [0.4, 0.5]}
            ).encode(),
            "selftest/vectors.npz": write_npz(
                {"input/image": image, "output/boxes": boxes, "output/scores": scores}
            ),
            f"targets/{target.id}.json": json.dumps(target.to_json()).encode(),
        },
        {},
        [signer],
    )
    return path


def good_frame(seed=0, shape=(HEIGHT, WIDTH)):
    random = np.random.default_rng(seed)
    return (GREY + random.integers(-3, 4, shape)).astype(np.uint8)


def with_line(frame, start, end, grey=DARK, width=3):
    """A copy with a line from x, y to x, y."""
    frame = frame.copy()
    steps = 2 * int(max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)) + 1
    for share in np.linspace(0, 1, steps):
        x, y = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
        half = width // 2
        frame[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1] = grey
    return frame


def frames(number=8, bad=(), shape=(HEIGHT, WIDTH)):
    """(n, H, W); those in `bad` have a scratch of 60 px."""
    made = [good_frame(seed, shape) for seed in range(number)]
    for at in bad:
        made[at] = with_line(made[at], (100, 100), (160, 110))
    return np.stack(made)


def save_frames(path, made):
    np.save(path, made)
    return path


def recipe(path, **changes):
    settings = {
        "product": "plate",
        "width_px": WIDTH,
        "height_px": HEIGHT,
        "mm_per_px": 0.1,
        "smallest_defect_mm": 0.2,
        "rules": (Rule("burr", max_length_mm=1.0, max_count=3),),
        "deadline_ms": 2000.0,
        "tile_px": 192,
        "halo_px": 32,
        "audit_share": 0.0,
        **changes,
    }
    write_recipe(Recipe(**settings), path)
    return path


@asynccontextmanager
async def running(folder, made, *, cameras=2, detector=None, station=None, **settings):
    """A line over frames in memory; the station, with lists of what it told.

    `source` is of the first camera alone.
    """
    folder.mkdir(exist_ok=True)
    frames_file = save_frames(folder / "frames.npy", made)
    recipe_file = recipe(folder / "plate.recipe", **settings.pop("recipe", {}))
    source = {"kind": "memory", "path": str(frames_file)}
    sources = [source | settings.pop("source", {}), *[source] * (cameras - 1)]
    configs = [
        CameraConfig(f"camera-{n}", {**one, "first": n}, recipe_file)
        for n, one in enumerate(sources)
    ]
    found = make_station(folder, configs, detector, station, **settings)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def make_station(folder, configs, detector=None, config=None, **settings):
    verdicts, alarms = [], []
    detector = detector or save_onnx(folder / "lines.onnx")
    config = config or StationConfig(
        triage=FAKE_TRIAGE,
        detector=DetectorConfig(workers=1, pin=False),
        seed=0,
        reserve_mib=1,
        **settings,
    )
    made = Station(
        config,
        configs,
        detector,
        folder / "out",
        on_verdict=verdicts.append,
        on_alarm=alarms.append,
    )
    made.verdicts, made.alarms_told = verdicts, alarms
    return made


def in_loop(test):
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 100))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__wrapped__ = test
    return run


async def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        await asyncio.sleep(0.005)


ROOT = Path(__file__).parents[4]
