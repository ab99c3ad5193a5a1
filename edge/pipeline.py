"""The one way to predict: checked inputs, numpy steps, a compiled model, numpy steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from edge.arrays import read_npz
from edge.backends import Arrays, Backend, load_backend
from edge.bundle import Bundle
from edge.device import check_facts, choose_target
from edge.manifest import Tensor
from edge.ops import CheckedStep, check_steps, run_steps
from edge.selftest import VECTORS, SelfTest, run_self_test
from edge.target import Target

PRE, POST = "pipeline/pre.json", "pipeline/post.json"


@dataclass(frozen=True)
class Pipeline:
    """An opened bundle on one target; `open` makes it, `predict` uses it."""

    target: Target
    backend: Backend
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    pre: tuple[CheckedStep, ...]
    post: tuple[CheckedStep, ...]
    self_test: SelfTest

    @classmethod
    def open(
        cls, bundle: Bundle | Path | str, device: str = "auto", threads: int | None = None
    ) -> Pipeline:
        """Verify a bundle, load its model for this device and run its self-test.

        Args:
            bundle: opened, or the file.
            device: a target id; "auto" takes the first in the bundle that this machine can run.
            threads: of one inference; None leaves it to the runtime.
        Raises:
            ValueError: the bundle is not trusted, no target fits, the runtime took another provider
                or precision, or the self-test failed.
            ModuleNotFoundError: the runtime of the named target is not installed.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads} is below 1; leave it out or give 1 or more")
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(Path(bundle))
        target = choose_target(bundle.targets, device)
        pre, post = (check_steps(_read_json(bundle, path)) for path in (PRE, POST))
        folder = PurePosixPath(target.model).parent
        beside = [path for path in bundle.files if folder in PurePosixPath(path).parents]
        if target.model not in beside:
            raise ValueError(f"target {target.id!r} names {target.model!r}, which is not inside")
        files = {path: bundle.read(path) for path in beside}
        backend = load_backend(files, target, threads=threads)
        check_facts(backend.facts, target)
        vectors = read_npz(bundle.read(VECTORS))
        tested, outputs = run_self_test(backend, vectors, target, bundle.manifest.inputs)
        _check_outputs(run_steps(post, outputs), bundle.manifest.outputs)
        manifest = bundle.manifest
        return cls(target, backend, manifest.inputs, manifest.outputs, pre, post, tested)

    def part(self, *outputs: str) -> Pipeline:
        """A pipeline for some of the outputs; the runtime leaves out what only others need.

        A backend that cannot leave anything out computes all of them.

        Raises:
            ValueError: an output is not the manifest's, or steps behind the model need others.
        """
        if self.post:
            raise ValueError(f"{POST} may need every output of the model; use the whole pipeline")
        known = {output.name: output for output in self.outputs}
        if unknown := sorted(set(outputs) - set(known)):
            raise ValueError(f"output {unknown[0]!r} is not one of {', '.join(known)}")
        part = getattr(self.backend, "part", None)
        backend = part(outputs) if part else self.backend
        chosen = tuple(known[name] for name in outputs)
        return replace(self, backend=backend, outputs=chosen)

    def predict(self, sample: Arrays) -> dict[str, np.ndarray]:
        """Outputs by name, as the manifest lists them.

        Args:
            sample: arrays by name, with the shapes and types of the manifest's inputs.
        Raises:
            ValueError: an input is missing, unknown, or of another type or shape; it is named.
        """
        check_inputs(sample, self.inputs)
        return self.run(sample)

    def run(self, sample: Arrays) -> dict[str, np.ndarray]:
        """As `predict`, for a sample that `check_inputs` has seen."""
        arrays = run_steps(self.pre, sample)
        missing = [name for name in self.backend.input_names if name not in arrays]
        if missing:
            raise ValueError(f"{PRE} gives {', '.join(arrays)}, the model needs {missing[0]!r}")
        found = self.backend.run({name: arrays[name] for name in self.backend.input_names})
        found = run_steps(self.post, found)
        return {output.name: found[output.name] for output in self.outputs}


def check_inputs(sample: Arrays, inputs: Sequence[Tensor]) -> None:
    """Make sure that a sample is what the manifest says.

    Raises:
        ValueError: an input is missing, unknown, or of another type, rank or size; it is named.
    """
    if len(sample) != len(inputs) or any(tensor.name not in sample for tensor in inputs):
        wrong = sorted({tensor.name for tensor in inputs} ^ set(sample))
        names = ", ".join(tensor.name for tensor in inputs)
        raise ValueError(f"input {wrong[0]!r} is missing or unknown; the inputs are {names}")
    sizes: dict[str, tuple[int, str]] = {}
    for tensor in inputs:
        array, name = sample[tensor.name], tensor.name
        if not isinstance(array, np.ndarray):
            raise ValueError(f"input {name!r} is a {type(array).__name__}, not a numpy array")
        if array.dtype != tensor.dtype:
            raise ValueError(f"input {name!r} has dtype={array.dtype}, it must be {tensor.dtype}")
        if array.ndim != len(tensor.shape):
            raise ValueError(
                f"input {name!r} has shape={array.shape}, it must have {len(tensor.shape)} axes: "
                f"({', '.join(map(str, tensor.shape))})"
            )
        for axis, size in zip(tensor.shape, array.shape, strict=True):
            if isinstance(axis, int) and axis != size:
                raise ValueError(
                    f"input {name!r} has shape={array.shape}, it must be "
                    f"({', '.join(map(str, tensor.shape))})"
                )
            if isinstance(axis, str) and sizes.setdefault(axis, (size, name))[0] != size:
                other_size, other = sizes[axis]
                raise ValueError(
                    f"input {name!r} has {axis}={size}, input {other!r} has {axis}={other_size}; "
                    "they must be equal"
                )


def _check_outputs(found: Arrays, outputs: Sequence[Tensor]) -> None:
    for tensor in outputs:
        if tensor.name not in found:
            raise ValueError(
                f"manifest.outputs has {tensor.name!r}, the model and {POST} give "
                f"{', '.join(found)}; pack the bundle again"
            )
        array = found[tensor.name]
        if array.dtype != tensor.dtype or array.ndim != len(tensor.shape):
            raise ValueError(
                f"output {tensor.name!r} has dtype={array.dtype} and {array.ndim} axes, the "
                f"manifest says {tensor.dtype} and {len(tensor.shape)}; pack the bundle again"
            )
        for at, (axis, size) in enumerate(zip(tensor.shape, array.shape, strict=True)):
            if at > 0 and isinstance(axis, int) and axis != size:
                raise ValueError(
                    f"output {tensor.name!r} has an axis of size {size}, the manifest says {axis}; "
                    "pack the bundle again"
                )


def _read_json(bundle: Bundle, path: str) -> list[dict[str, object]]:
    if path not in bundle.files:
        return []
    try:
        content: list[dict[str, object]] = json.loads(bundle.read(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}; pack the bundle again") from None
    return content
