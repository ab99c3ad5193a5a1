"""Portable ONNX: the model as exported, for any machine and any runtime that reads ONNX."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.convert.parity import tolerance_of
from core.convert.runner import ONNX_RUNTIME, BackendRunner, open_artifact
from core.convert.source import Source
from core.convert.target import Artifact, Options
from edge.onnx_file import describe_onnx
from edge.target import Target


class OnnxConverter:
    """Copies the portable model; reads `precision` and `values['tolerance']` of the options."""

    name = "onnx"
    suffix = ".onnx"
    ids = ("portable-onnx",)

    def convert(
        self, source: Source, onnx: Path, folder: Path, target_id: str, options: Options
    ) -> Artifact:
        """Copy the model and the files its weights are in."""
        model = folder / f"{source.name}{self.suffix}"
        shutil.copyfile(onnx, model)
        weights = describe_onnx(onnx.read_bytes()).external
        for name in weights:
            shutil.copyfile(onnx.parent / name, folder / name)
        target = Target(
            id=target_id,
            arch="any",
            backend="onnxruntime",
            accelerator="cpu",
            precision=options.precision,
            model=model.name,
            state="verified",
            tolerance=tolerance_of(options),
            runtime=ONNX_RUNTIME,
        )
        return Artifact(target, folder, (model.name, *weights))

    def open(self, artifact: Artifact) -> BackendRunner:
        """Load it with ONNX Runtime."""
        return open_artifact(artifact)


CONVERTER = OnnxConverter()
