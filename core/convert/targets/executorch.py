"""ExecuTorch with XNNPACK: a `.pte` file for phones and ARM boards, which any machine can write."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from core.convert.export import short_reason
from core.convert.parity import tolerance_of
from core.convert.program import describe_axes, export_program
from core.convert.source import Arrays, Source
from core.convert.target import Artifact, Options
from edge.target import Target

DELEGATE = "XnnpackBackend"
# What XNNPACK's serialiser says of a reshape, which its partitioner took, of several free axes.
ONE_AXIS = "only supports 1 dynamic dimension"
RESHAPES = ("UnsqueezeCopyConfig", "ViewCopyConfig")


class ExecutorchConverter:
    """Needs the source's module; reads `precision` (float32 alone).

    Free axes keep the source's upper bounds: memory is planned for the largest sizes.
    """

    name = "executorch"
    suffix = ".pte"
    ids = ("any-executorch-xnnpack",)

    def convert(
        self,
        source: Source,
        onnx: Path,  # noqa: ARG002 (made from the module)
        folder: Path,
        target_id: str,
        options: Options,
    ) -> Artifact:
        """Trace the module, give XNNPACK what it can compute, and write the rest for the CPU.

        Raises:
            ValueError: no module to trace, another precision, or an operator that neither has.
            ModuleNotFoundError: executorch is not installed.
        """
        if target_id not in self.ids:
            raise ValueError(f"target={target_id!r} is not one of {', '.join(self.ids)}")
        if options.precision != "float32":
            raise ValueError(
                f"precision={options.precision!r} is not float32, the one precision of executorch"
            )
        result, left_out = _lower(source)
        path = folder / f"{source.name}{self.suffix}"
        path.write_bytes(result.buffer)
        (plan,) = result.executorch_program.execution_plan
        delegates = [delegate.id for delegate in plan.delegates]
        others = sorted({operator.name.removeprefix("aten::") for operator in plan.operators})
        target = Target(
            id=target_id,
            arch="any",
            backend="executorch",
            accelerator="cpu",
            precision=options.precision,
            model=path.name,
            state="verified",
            tolerance=tolerance_of(options),
            runtime=f">={version('executorch')}",
            options={
                "inputs": list(source.example),
                "outputs": list(source.output_names),
                "delegates": sorted(set(delegates)),
                "undelegated": others,
            },
        )
        notes = (
            f"{len(delegates)} parts run in XNNPACK; left to plain kernels: "
            f"{', '.join(others) or 'nothing'}",
            f"free axes, memory planned for the highest: {describe_axes(source)}",
            *left_out,
        )
        return Artifact(target, folder, (path.name,), notes=notes)

    def open(self, artifact: Artifact) -> ExecutorchRunner:
        """Load it in the runtime that comes with the package."""
        return ExecutorchRunner(artifact)


class ExecutorchRunner:
    """A program in the runtime's Python binding; the device has the same runtime in C++."""

    def __init__(self, artifact: Artifact) -> None:
        with _quiet():
            from executorch.runtime import Runtime
        runtime = Runtime.get()
        if DELEGATE not in runtime.backend_registry.registered_backend_names:
            raise ValueError(f"this build of executorch lacks {DELEGATE}; install its wheel")
        self._data = artifact.path.read_bytes()  # the program points into it
        self._method = runtime.load_program(self._data).load_method("forward")
        self._target = artifact.target
        used = DELEGATE in artifact.target.options["delegates"]
        self.facts: Mapping[str, str] = {
            "backend": "executorch",
            "runtime": version("executorch"),
            "provider": DELEGATE if used else "portable",
            "precision": "float32",
        }

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name.

        Raises:
            RuntimeError: an axis is above its bound.
        """
        names = self._target.options
        outputs = self._method.execute([torch.from_numpy(inputs[name]) for name in names["inputs"]])
        # The runtime gives views of memory that its next call overwrites.
        return {
            name: value.numpy().copy()
            for name, value in zip(names["outputs"], outputs, strict=True)
        }


def _lower(source: Source) -> tuple[Any, tuple[str, ...]]:
    """The program, and a note if reshapes had to be left to plain kernels."""
    exir, xnnpack, configs = _import_exir()
    left_out: tuple[str, ...] = ()
    chosen: list[type] | None = None
    while True:
        program = export_program(source)  # lowering changes the one it gets
        try:
            with _quiet():
                parts = [xnnpack(configs=chosen)]
                lowered = exir.to_edge_transform_and_lower(program, partitioner=parts)
                return lowered.to_executorch(), left_out
        except Exception as error:  # passes of executorch raise anything
            if chosen is not None or ONE_AXIS not in str(error):
                raise ValueError(f"ExecuTorch refused the model: {short_reason(error)}") from error
            chosen = [config for config in configs if config.__name__ not in RESHAPES]
            left_out = ("reshapes are left to plain kernels: XNNPACK's have one free axis only",)


def _import_exir() -> tuple[Any, Any, list[type]]:
    """The lowering functions, the partitioner for XNNPACK, and what it can be asked to take."""
    try:
        with _quiet():
            from executorch import exir
            from executorch.backends.xnnpack.partition import config, xnnpack_partitioner
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"executorch is not installed ({error}); pip install .[executorch]"
        ) from None
    return exir, xnnpack_partitioner.XnnpackPartitioner, config.ALL_PARTITIONER_CONFIGS


@contextmanager
def _quiet() -> Iterator[None]:
    """Without executorch's warnings on interfaces it uses itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


CONVERTER = ExecutorchConverter()
