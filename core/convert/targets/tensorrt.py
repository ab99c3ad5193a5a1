"""TensorRT on a Jetson Orin: engines fit one board and version, so the board builds its own.

trtexec of TensorRT 10 (JetPack 6) takes the precision as a flag. TensorRT 11 (11.4.1 on, JetPack
7.2.2 on) removed those flags: types are the file's, so float16 comes as a second file.
Source: docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration, pages "trtexec" and "jetson";
options as in samples/common/sampleOptions.cpp of github.com/NVIDIA/TensorRT, 2026-07-07.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx as onnx_package

from core.convert.build_bundle import (
    Build,
    BuildBundle,
    is_quantised,
    read_model,
    write_build_bundle,
)
from core.convert.source import Source
from core.convert.target import Artifact, Options
from core.convert.targets.tensorrt_rtx import profile_shapes
from edge.runtimes import import_runtime

DEVICES = ("orin",)
PRECISIONS = ("float32", "float16", "int8")
REQUIRES = {
    "10": {"trtexec": ">=10.3,<11", "JetPack": ">=6.1,<7"},
    "11": {"trtexec": ">=11.4.1,<12", "JetPack": ">=7.2.2"},
}
DEVICE_FACTS = ("compute_capability", "tensorrt", "cuda", "l4t", "power_mode", "dla")


class TensorrtConverter:
    """Writes a build bundle; reads `precision`, `calibration` and `values["dla_core"]`.

    int8 needs a model with QuantizeLinear nodes: TensorRT 11 knows no other int8, and TensorRT 10
    calibrates inside a program of its own only. Calibration samples are kept for the record.
    """

    name = "tensorrt"
    suffix = ".tensorrt.json"
    ids = ("jetson-orin-trt",)

    def convert(
        self, source: Source, onnx: Path, folder: Path, target_id: str, options: Options
    ) -> Artifact:
        """Write `<source.name>.tensorrt.json` and the models it names.

        Raises:
            ValueError: an unknown device or precision, int8 of a model that is not quantised, or
                names of inputs that trtexec cannot be told.
        """
        if target_id not in self.ids:
            raise ValueError(f"target={target_id!r} is not one of {', '.join(self.ids)}")
        if options.device and options.device not in DEVICES:
            raise ValueError(f"device={options.device!r} is not one of {', '.join(DEVICES)}")
        if options.precision not in PRECISIONS:
            raise ValueError(
                f"precision={options.precision!r} is not one of {', '.join(PRECISIONS)}"
            )
        files = {"onnx": read_model(onnx)}
        models = {"10": "onnx", "11": "onnx"}
        if options.precision == "float16":
            models["11"] = "float16.onnx"
            files["float16.onnx"] = _in_float16(onnx)
        if options.precision == "int8" and not is_quantised(onnx_package.load(str(onnx))):
            raise ValueError(
                "precision='int8' needs a model with QuantizeLinear nodes; compress it first"
            )
        builds = [
            Build(
                f"tensorrt-{major}",
                trtexec_argv(major, model, source, options),
                ("model.engine",),
                REQUIRES[major],
            )
            for major, model in models.items()
        ]
        target = {
            "id": target_id,
            "arch": "aarch64",
            "backend": "tensorrt",
            "accelerator": "Jetson Orin",
            "runtime": ">=10.3",
        }
        bundle = BuildBundle(self.suffix, builds, files, DEVICE_FACTS)
        return write_build_bundle(source, folder, target, options, bundle)

    def open(self, artifact: Artifact) -> None:
        """Nothing: there is no board here."""


def trtexec_argv(major: str, model: str, source: Source, options: Options) -> tuple[str, ...]:
    """The command that builds the engine, without running it.

    Raises:
        ValueError: an input's name has a character that trtexec separates by.
    """
    argv = ["trtexec", f"--onnx={{stem}}.{model}", "--saveEngine={output}/model.engine"]
    precision = {"float16": "--fp16", "int8": "--stronglyTyped"}.get(options.precision)
    if precision and major == "10":
        argv.append(precision)
    if options.precision == "float32":
        argv.append("--noTF32")
    argv.append("--timingCacheFile={output}/timing.cache")
    shapes = profile_shapes(source)
    for name in shapes:
        if set(name) & set(":,'\""):
            raise ValueError(f"input {name!r} has one of : , ' \", which trtexec splits at")
    for place, flag in enumerate(("--minShapes", "--optShapes", "--maxShapes")):
        if shapes:
            sizes = {name: "x".join(map(str, shape[place])) for name, shape in shapes.items()}
            argv.append(f"{flag}={','.join(f'{name}:{size}' for name, size in sizes.items())}")
    core = options.values.get("dla_core")
    if core is not None:
        if core not in (0, 1) or options.precision == "float32":
            raise ValueError(
                f"dla_core={core!r} with precision={options.precision!r}: Orin has the cores 0 and "
                f"1, which compute in float16 and int8"
            )
        argv += [f"--useDLACore={core}", "--allowGPUFallback"]
    return (*argv, "--skipInference")


def _in_float16(onnx: Path) -> bytes:
    """The model with weights and arithmetic in float16; inputs and outputs stay as they are."""
    float16: Any = import_runtime("onnxruntime.transformers.float16")
    model = float16.convert_float_to_float16(onnx_package.load(str(onnx)), keep_io_types=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


CONVERTER = TensorrtConverter()
