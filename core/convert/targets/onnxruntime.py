"""ONNX Runtime's own form of the model: fused beforehand, so that a device loads it faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx as onnx_package

from core.convert.parity import tolerance_of
from core.convert.runner import ONNX_RUNTIME, BackendRunner, open_artifact
from core.convert.source import Source
from core.convert.target import Artifact, Options
from edge.onnx_file import describe_onnx
from edge.runtimes import import_runtime
from edge.target import State, Target

# Files above 2 GiB cannot be one protobuf message; leave room for what fusing duplicates.
MAX_BYTES_OF_ONE_FILE = 1536 * 2**20
# Operators that only the kernels of x86 have, or that fit one width of its vectors.
HARDWARE_BOUND = "com.microsoft.nchwc"
NOTE = (
    "compared on this machine with the runtime the device has; the emulated lane compares it on "
    "the device's architecture"
)


class OnnxRuntimeConverter:
    """Optimised offline at level "extended"; reads `precision` and `tolerance`.

    The level above, "layout", fits the vector width of the machine that builds, and is left to the
    session on the device.
    """

    name = "onnxruntime"
    suffix = ".ort.onnx"
    ids = ("x86_64-ort-cpu", "aarch64-ort-cpu")

    def convert(
        self, source: Source, onnx: Path, folder: Path, target_id: str, options: Options
    ) -> Artifact:
        """Fuse, and make sure that nothing of this machine went into the file.

        Raises:
            ValueError: not one of `ids`, or ONNX Runtime cannot load the model.
            ModuleNotFoundError: onnxruntime is not installed.
        """
        if target_id not in self.ids:
            raise ValueError(f"target={target_id!r} is not one of {', '.join(self.ids)}")
        arch = target_id.partition("-")[0]
        model = folder / f"{source.name}{self.suffix}"
        weights = optimise(onnx, model, is_arm=arch == "aarch64")
        state: State = "verified" if arch == "x86_64" else "emulated"
        target = Target(
            id=target_id,
            arch=arch,
            backend="onnxruntime",
            accelerator="cpu",
            precision=options.precision,
            model=model.name,
            state=state,
            tolerance=tolerance_of(options),
            runtime=ONNX_RUNTIME,
        )
        notes = (NOTE,) if state == "emulated" else ()
        return Artifact(target, folder, (model.name, *weights), notes=notes)

    def open(self, artifact: Artifact) -> BackendRunner:
        """Load it as the device does."""
        return open_artifact(artifact)


def optimise(onnx: Path, model: Path, *, is_arm: bool) -> tuple[str, ...]:
    """Write the model as fused by ONNX Runtime.

    Args:
        onnx: the portable model.
        model: the file to write.
        is_arm: keep signed 8-bit integers, which x86 has ONNX Runtime rewrite as unsigned ones.
    Returns:
        names of the files beside `model` that hold its weights, for a model above 1.5 GiB.
    Raises:
        ValueError: ONNX Runtime cannot load the model, or put operators of one machine into it.
    """
    onnxruntime: Any = import_runtime("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.optimized_model_filepath = str(model)
    settings.log_severity_level = 3  # warns that the file may be bound to this machine; see below
    settings.intra_op_num_threads = 1
    settings.add_session_config_entry("session.qdqisint8allowed", "1" if is_arm else "0")
    weights: tuple[str, ...] = ()
    parts = [onnx, *(onnx.parent / name for name in describe_onnx(onnx.read_bytes()).external)]
    if sum(part.stat().st_size for part in parts) > MAX_BYTES_OF_ONE_FILE:
        weights = (f"{model.name}.data",)
        for key, value in (("file_name", weights[0]), ("min_size_in_bytes", "256")):
            settings.add_session_config_entry(
                f"session.optimized_model_external_initializers_{key}", value
            )
    try:
        onnxruntime.InferenceSession(str(onnx), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a type for each status, none public
        first = (str(error).splitlines() or ["no message"])[0]
        raise ValueError(f"ONNX Runtime does not load the model: {first}") from error
    nodes = onnx_package.load(str(model), load_external_data=False).graph.node
    bound = sorted({node.op_type for node in nodes if node.domain == HARDWARE_BOUND})
    if bound:
        raise ValueError(f"operators={', '.join(bound)} run on one kind of x86 only; lower level")
    return weights


CONVERTER = OnnxRuntimeConverter()
