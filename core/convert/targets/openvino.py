"""OpenVINO IR for Intel's runtime, in float32 and in bfloat16 as separate targets."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.convert.parity import tolerance_of
from core.convert.runner import BackendRunner, open_artifact
from core.convert.source import Source
from core.convert.target import Artifact, Options
from edge.runtimes import import_runtime
from edge.target import Target

BFLOAT16 = "-bf16"
# A layer without a name of its own: its type, which is "Const" for a constant, and a count; another
# number follows where that name was taken.
UNNAMED = re.compile(r'name="([A-Za-z]\w*?)(?:_\d+)+" type="(\1|Const)"')


class OpenvinoConverter:
    """Reads `precision` (float32, int8) and `tolerance`; bfloat16 has an id of its own.

    Left to itself the runtime computes in the fastest precision of the machine at hand, so both
    ids pin it, and the backend asserts it after loading. The file holds float32 weights in both.
    """

    name = "openvino"
    suffix = ".xml"
    ids = ("x86_64-openvino-cpu", "x86_64-openvino-cpu-bf16")

    def convert(
        self, source: Source, onnx: Path, folder: Path, target_id: str, options: Options
    ) -> Artifact:
        """Write `<source.name>.xml` and the weights beside it as `.bin`.

        Raises:
            ValueError: OpenVINO lacks an operator, or an axis of the source became a number.
            ModuleNotFoundError: openvino is not installed.
        """
        if target_id not in self.ids:
            raise ValueError(f"target={target_id!r} is not one of {', '.join(self.ids)}")
        if target_id.endswith(BFLOAT16):
            options = replace(options, precision="bfloat16")
        openvino: Any = import_runtime("openvino")
        try:
            model = openvino.Core().read_model(str(onnx))
        except RuntimeError as error:
            raise ValueError(f"OpenVINO does not read the model: {_reason(error)}") from error
        _check_axes(source, model)
        path = folder / f"{source.name}{self.suffix}"
        openvino.save_model(model, str(path), compress_to_fp16=False)
        path.write_text(number_layers(path.read_text(encoding="utf-8")), encoding="utf-8")
        target = Target(
            id=target_id,
            arch="x86_64",
            backend="openvino",
            accelerator="cpu",
            precision=options.precision,
            model=path.name,
            state="verified",
            tolerance=tolerance_of(options),
            runtime=f">={openvino.__version__.partition('-')[0]}",
            options={"inputs": list(source.example), "outputs": list(source.output_names)},
        )
        return Artifact(target, folder, (path.name, path.with_suffix(".bin").name))

    def open(self, artifact: Artifact) -> BackendRunner:
        """Compile it as the device does."""
        return open_artifact(artifact)


def number_layers(text: str) -> str:
    """An IR whose unnamed layers are counted within it; OpenVINO counts them over the process."""
    numbers = itertools.count()

    def rename(found: re.Match[str]) -> str:
        kind, type_ = found.groups()
        if type_ != kind != "Constant":  # a weight with a name of its own
            return found[0]
        return f'name="{kind}_{next(numbers)}" type="{type_}"'

    return UNNAMED.sub(rename, text)


def _check_axes(source: Source, model: Any) -> None:
    for name, dimensions in source.axes.items():
        shape = model.input(name).get_partial_shape()
        for dimension, axis in dimensions.items():
            if not shape[dimension].is_dynamic:
                raise ValueError(
                    f"axis={axis.name!r} of input {name!r} became the number {shape[dimension]}; "
                    f"export the model with that axis free"
                )


def _reason(error: RuntimeError) -> str:
    """The lines that name what is missing; OpenVINO begins with places in its own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [
        line
        for line in lines
        if not line.startswith(("Exception from", "Check '", "FrontEnd API failed"))
    ]
    return "; ".join(useful or lines)[:500]


CONVERTER = OpenvinoConverter()
