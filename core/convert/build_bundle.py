"""What a device needs to build an engine that cannot be built here: a recipe and its files.

The recipe is `<name>.<target>.json`, canonical JSON beside its files `<name>.<target>.onnx` and
others, which it names by what follows `<name>.<target>.`: all of them may be renamed together.
`edge/recipe.py` carries it out on the device. Equal models give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from core.convert.graph import graphs_of
from core.convert.parity import TOLERANCES, tolerance_of
from core.convert.source import Axis, Source
from core.convert.target import Artifact, Options
from edge import canonical
from edge.onnx_file import describe_onnx
from edge.recipe import SCHEMA
from edge.target import Target, Tolerance

FLOAT16 = Tolerance(1e-2, 1e-2, "float16 keeps 11 bits: each operation rounds by 0.05 %, adds up")
MINIMUM_SAMPLES = 8


@dataclass(frozen=True)
class Build:
    """One way to build the engine, for one generation of the vendor's tool."""

    name: str  # "tensorrt-10"
    argv: tuple[str, ...]  # run without a shell; {stem} and {output}: see edge/recipe.py
    artifacts: tuple[str, ...]  # what the tool may have written into {output}, one of them
    requires: Mapping[str, str]  # "TensorRT": ">=10.3,<11"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "argv": list(self.argv),
            "artifacts": list(self.artifacts),
            "requires": dict(self.requires),
        }


@dataclass(frozen=True)
class BuildBundle:
    """What goes into a build bundle, beside what is read from the model."""

    suffix: str  # ".tensorrt.json"
    builds: Sequence[Build]
    files: Mapping[str, bytes]  # "onnx": the model that equals the source; others: "aipp.cfg"
    device_facts: Sequence[str]  # what the device adds to the key of its engine cache
    unsupported: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)  # into the recipe as they are


def write_build_bundle(
    source: Source, folder: Path, target: Mapping[str, Any], options: Options, bundle: BuildBundle
) -> Artifact:
    """Write the recipe and its files into a folder; the artifact's state is contract-only.

    Args:
        source: the model; its axes tell which sizes the engine is built for.
        folder: where to write.
        target: id, arch, backend, accelerator and runtime of the target.
        options: precision, tolerance, calibration.
        bundle: commands, files, and what the vendor's tool lacks.
    """
    files = dict(bundle.files)
    calibration = None
    if options.calibration is not None:
        files["calibration.npz"] = calibration_bytes(source, options.calibration)
        samples = _samples(source, options.calibration)
        calibration = {"file": "calibration.npz", "samples": samples}
    model = onnx.load_from_string(files["onnx"])
    sha256 = hashlib.sha256(files["onnx"]).hexdigest()
    recipe = {
        "schema": SCHEMA,
        "target": target["id"],
        "state": "contract-only",
        "precision": options.precision,
        "model": {"file": "onnx", "sha256": sha256, "opset": opset_of(model)},
        "inputs": [_describe(value) for value in model.graph.input],
        "outputs": [_describe(value) for value in model.graph.output],
        "axes": {axis.name: _plain(axis) for axis in _axes(source)},
        "builds": [build.to_json() for build in bundle.builds],
        "key": {"model_sha256": sha256, "device": list(bundle.device_facts)},
        "calibration": calibration,
        "unsupported": [dict(entry) for entry in bundle.unsupported],
        "files": {
            part: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for part, content in files.items()
        },
        **bundle.details,
    }
    path = folder / f"{source.name}{bundle.suffix}"
    path.write_bytes(canonical.dumps(recipe))
    for part, content in files.items():
        path.with_suffix(f".{part}").write_bytes(content)
    description = Target(
        **target,
        precision=options.precision,
        model=path.name,
        state="contract-only",
        tolerance=tolerance(options),
        recipe=recipe,
    )
    notes = ("only the recipe exists: the device builds and has never run it", *bundle.notes)
    names = [path.with_suffix(f".{part}").name for part in sorted(files)]
    return Artifact(description, folder, (path.name, *names), notes=notes)


def tolerance(options: Options) -> Tolerance:
    """The asked or usual tolerance; float16, which nothing here computes in, has one of its own."""
    usual = {"float16": FLOAT16} if "float16" not in TOLERANCES else {}
    if options.precision in usual and "tolerance" not in options.values:
        return usual[options.precision]
    return tolerance_of(options)


def calibration_bytes(source: Source, calibration: Mapping[str, Any]) -> bytes:
    """Samples as npz, equal bytes for equal samples.

    Raises:
        ValueError: an input is missing, or there are fewer than 8 samples.
    """
    if set(calibration) != set(source.example):
        raise ValueError(
            f"calibration={sorted(calibration)} are not the inputs {sorted(source.example)}"
        )
    if (samples := _samples(source, calibration)) < MINIMUM_SAMPLES:
        raise ValueError(f"calibration has {samples} samples, less than {MINIMUM_SAMPLES}")
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(calibration[name]) for name in sorted(calibration)}
    np.savez(stream, **arrays)
    return stream.getvalue()


def read_model(path: Path) -> bytes:
    """An ONNX file with its weights inside, wherever they were.

    Raises:
        ValueError: the whole is over 2 GiB, more than one file of ONNX can hold.
    """
    if not describe_onnx(path.read_bytes()).external:
        return path.read_bytes()
    model = onnx.load(str(path))
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except ValueError as error:  # of protobuf
        raise ValueError(f"{path.name} is over 2 GiB with its weights; {error}") from None
    return content


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model is written in."""
    versions = {entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import}
    return versions["ai.onnx"]


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a model computes in integers between QuantizeLinear and DequantizeLinear nodes."""
    return any(
        node.op_type == "QuantizeLinear" for graph in graphs_of(model.graph) for node in graph.node
    )


def _samples(source: Source, calibration: Mapping[str, Any]) -> int:
    return min(len(np.asarray(calibration[name])) for name in source.example)


def _describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": str(dtype), "shape": shape}


def _axes(source: Source) -> list[Axis]:
    named = {axis.name: axis for axes in source.axes.values() for axis in axes.values()}
    return list(named.values())


def _plain(axis: Axis) -> dict[str, int]:
    return {"low": axis.low, "high": axis.high, "multiple_of": axis.multiple_of}
