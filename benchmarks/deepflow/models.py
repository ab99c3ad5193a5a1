"""The models of the benchmark, each one bundle with a target per kind of worker.

Weights are random and seeded: what is measured is time. `build/deepflow` keeps what was made.

Dimensions: B batch, T time, D H W voxels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.arrays import write_npz
from edge.backends import Arrays, Backend, load_backend
from edge.bundle import write_bundle
from edge.keys import load_signers, new_key
from edge.target import Target, Tolerance, machine

if TYPE_CHECKING:
    from core.convert.source import Source

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "deepflow"
KEYS = WORK / "keys"
# Rows in one run; a fraud request holds many transactions.
MAX_BATCH = {"fraud": 256}
USUAL_MAX_BATCH = 16
# Rows of the test vectors: as many as a bundle must have.
SELF_TEST_ROWS = 8
CALIBRATION_ROWS = 32


@dataclass(frozen=True)
class Kind:
    """A kind of worker: one runtime and one precision on one thread of one core."""

    backend: str  # a module of edge/backends
    precision: str
    file: str  # of the bundle: which ONNX file it reads


KINDS: Mapping[str, Kind] = {
    "ort-fp32": Kind("onnxruntime", "float32", "float32.onnx"),
    "ort-int8": Kind("onnxruntime", "int8", "int8.onnx"),
    "openvino": Kind("openvino", "float32", "float32.onnx"),
    "openvino-bf16": Kind("openvino", "bfloat16", "float32.onnx"),
}


def classifier(name: str, size_px: int) -> Source:
    """A torchvision classifier of square images."""
    from benchmarks.zoo.models import classifier as torchvision_classifier

    return torchvision_classifier(name, size_px)


def fraud() -> Source:
    """The fraud kit's default network at its own size: LSTM, graph attention, MLP."""
    from benchmarks.zoo.models import fraud_lstm_gat

    return fraud_lstm_gat("fraud")


def lstm() -> Source:
    """Two LSTM layers over 64 steps of 64 values, and a linear layer on the last state."""
    import torch
    from torch import Tensor, nn

    from benchmarks.zoo.models import source

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(64, 256, num_layers=2, batch_first=True)
            self.head = nn.Linear(256, 8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.lstm(x)[0][:, -1])
            return out

    return source("lstm", Recurrent(), {"x": torch.randn(2, 64, 64)}, "logits", {})


def conv3d() -> Source:
    """A 3D convolutional classifier of volumes of 16 x 48 x 48 voxels."""
    import torch
    from torch import nn

    from benchmarks.zoo.models import settle, source

    widths = (1, 16, 32, 64)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        convolution = nn.Conv3d(before, after, 3, 2 if before > 1 else (1, 2, 2), 1, bias=False)
        layers += [convolution, nn.BatchNorm3d(after), nn.ReLU()]
        layers += [nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.BatchNorm3d(after), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(64, 4))
    settle(module, torch.randn(8, 1, 16, 48, 48))
    return source("conv3d", module, {"volume": torch.randn(2, 1, 16, 48, 48)}, "logits", {})


MODELS: Mapping[str, Callable[[], Source]] = {
    "resnet18": partial(classifier, "resnet18", 128),
    "resnet50": partial(classifier, "resnet50", 96),
    "mobilenet": partial(classifier, "mobilenet_v3_large", 160),
    "fraud": fraud,
    "lstm": lstm,
    "conv3d": conv3d,
}


def build(name: str) -> Source:
    """A model with the same weights at every call, its batch axis free."""
    import torch

    from core.convert.source import Axis

    torch.manual_seed(0)
    made, batch = MODELS[name](), Axis("batch", 1, max_batch(name))
    return replace(made, axes={key: {0: batch} for key in made.example})


def max_batch(name: str) -> int:
    """The most rows that one run of a model takes here."""
    return MAX_BATCH.get(name, USUAL_MAX_BATCH)


def bundle(name: str) -> Path:
    """The bundle of a model; made at the first call, and again when this file changed."""
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    stamp, path = WORK / f"{name}.made_by", WORK / f"{name}.ebundle"
    if path.exists() and stamp.exists() and stamp.read_text() == made_by:
        return path
    WORK.mkdir(parents=True, exist_ok=True)
    _write(name, path)
    stamp.write_text(made_by)
    return path


def inputs_of(name: str, rows: int) -> dict[str, np.ndarray]:
    """Rows of the bundle's own kind of samples."""
    with np.load(WORK / f"{name}.samples.npz") as samples:
        return {key: np.resize(samples[key], (rows, *samples[key].shape[1:])) for key in samples}


def _write(name: str, path: Path) -> None:
    from core.convert.export import export_onnx

    if not (KEYS / "root.json").exists():
        new_key(KEYS)
    source = build(name)
    files = {file: WORK / f"{name}.{file}" for file in ("float32.onnx", "int8.onnx")}
    export_onnx(source, files["float32.onnx"])
    samples = source.inputs({"batch": CALIBRATION_ROWS}, seed=1)
    np.savez(WORK / f"{name}.samples.npz", **samples)
    _quantise(files["float32.onnx"], files["int8.onnx"], samples)
    vectors = {key: value[:SELF_TEST_ROWS] for key, value in samples.items()}
    golden = source.run(vectors)
    content = {f"model/{file}": made.read_bytes() for file, made in files.items()}
    targets = [_target(id_, kind, content, vectors, golden) for id_, kind in KINDS.items()]
    content |= {f"targets/{t.id}.json": json.dumps(t.to_json()).encode() for t in targets}
    named = {f"input/{key}": value for key, value in vectors.items()}
    named |= {f"output/{key}": value for key, value in golden.items()}
    content["selftest/vectors.npz"] = write_npz(named)
    manifest = {
        "name": name,
        "version": "1.0.0",
        "channel": "benchmark",
        "created": 0,
        "expires": None,
        "rollback_index": 0,
        "min_runtime": "0.1.0",
        "requires": {"memory_mib": 1, "disk_mib": 1},
        "model": "model/float32.onnx",
        "inputs": [_tensor(key, value) for key, value in vectors.items()],
        "outputs": [_tensor(key, value) for key, value in golden.items()],
        "targets": [target.id for target in targets],
        "license": "Apache-2.0",
        "intended_use": "a benchmark: its weights are random",
    }
    write_bundle(path, manifest, content, {}, load_signers(KEYS))


def _quantise(model: Path, out: Path, samples: Mapping[str, np.ndarray]) -> None:
    """Convolutions and products with static scales (QDQ), LSTMs with dynamic ones."""
    from core.compress.config import QuantizeConfig
    from core.compress.quantize import quantize

    quantize(model, out, samples, cfg=QuantizeConfig(method="static", latency_runs=1))


def _tensor(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "dtype": str(array.dtype), "shape": ["batch", *array.shape[1:]]}


def _target(
    id_: str, kind: Kind, files: Mapping[str, bytes], vectors: Arrays, golden: Arrays
) -> Target:
    def with_tolerance(tolerance: Tolerance) -> Target:
        return Target(
            id_, machine(), kind.backend, "cpu", kind.precision, f"model/{kind.file}",
            "verified", tolerance,
        )  # fmt: skip

    if kind.precision == "float32":
        return with_tolerance(Tolerance(1e-3, 1e-3, "order of sums in float32"))
    # Random weights forgive no rounding: that it computes the same each time is all one can ask.
    draft = with_tolerance(Tolerance(0, 0, ""))
    found = open_backend(draft, files).run(vectors)
    error = max(float(np.nanmax(np.abs(found[key] - golden[key]))) for key in golden)
    reason = "twice the largest error seen; the weights are random"
    return with_tolerance(Tolerance(2 * error, 0, reason))


def open_backend(target: Target, files: Mapping[str, bytes]) -> Backend:
    """The model of a target on one thread."""
    return load_backend(files, target, threads=1)
