"""AOTInductor: the model compiled to machine code of this processor, in a `.pt2` archive."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.convert.export import short_reason
from core.convert.parity import tolerance_of
from core.convert.program import describe_axes, export_program
from core.convert.source import Arrays, Source, flatten
from core.convert.target import Artifact, Options
from edge.target import Target, machine

ARCH = "x86_64"


class AotiConverter:
    """Needs a C++ compiler and the source's module; reads `precision` (float32 alone).

    The code uses the vector instructions of the machine that builds, which the target names.
    """

    name = "aoti"
    suffix = ".pt2"
    ids = ("x86_64-aoti-cpu",)

    def convert(
        self,
        source: Source,
        onnx: Path,  # noqa: ARG002 (made from the module)
        folder: Path,
        target_id: str,
        options: Options,
    ) -> Artifact:
        """Trace the module and compile it.

        Raises:
            ValueError: no module to trace, another precision, or the compiler refused.
        """
        _check(target_id, self.ids, options)
        program = export_program(source)
        path = folder / f"{source.name}{self.suffix}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, on its own coming versions
                torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        except Exception as error:  # inductor and the compiler behind it raise anything
            raise ValueError(f"AOTInductor refused the model: {short_reason(error)}") from error
        instructions = str(_load(path).get_metadata().get("AOTI_CPU_ISA", "unknown"))
        target = Target(
            id=target_id,
            arch=ARCH,
            backend="aoti",
            accelerator="cpu",
            precision=options.precision,
            model=path.name,
            state="verified",
            tolerance=tolerance_of(options),
            runtime=f"=={torch.__version__.partition('+')[0]}",
            options={
                "inputs": list(source.example),
                "outputs": list(source.output_names),
                "instructions": instructions,
            },
        )
        notes = (
            f"runs on processors with {instructions} and this version of torch only",
            f"free axes: {describe_axes(source)}",
        )
        return Artifact(target, folder, (path.name,), is_reproducible=False, notes=notes)

    def open(self, artifact: Artifact) -> AotiRunner:
        """Load the compiled code into this process."""
        return AotiRunner(artifact)


class AotiRunner:
    """A compiled model."""

    def __init__(self, artifact: Artifact) -> None:
        self._model = _load(artifact.path)
        self._target = artifact.target

    @property
    def facts(self) -> Mapping[str, str]:
        """What runs it; matrix products lose digits where the process allows them to."""
        exact = torch.get_float32_matmul_precision() == "highest"
        return {
            "backend": "aoti",
            "runtime": torch.__version__,
            "provider": str(self._model.get_metadata()["AOTI_DEVICE_KEY"]),
            "precision": "float32" if exact else "float32 with bfloat16 products",
        }

    @torch.no_grad()
    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        tensors = [torch.from_numpy(inputs[name]) for name in self._target.options["inputs"]]
        outputs = flatten(self._model(*tensors))
        names = self._target.options["outputs"]
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch._inductor.aoti_load_package(str(path))


def _check(target_id: str, ids: tuple[str, ...], options: Options) -> None:
    if target_id not in ids:
        raise ValueError(f"target={target_id!r} is not one of {', '.join(ids)}")
    if machine() != ARCH:
        raise ValueError(f"target={target_id!r} is compiled on {ARCH}, this is {machine()}")
    if options.precision != "float32":
        raise ValueError(
            f"precision={options.precision!r} is not float32, the one precision of aoti; "
            f"for others take target openvino"
        )


CONVERTER = AotiConverter()
