"""A file to serve, opened: a signed bundle, or a bare ONNX file that says of itself what it is."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core.schedule.trial import Samples, batch_axis, find_samples
from edge.backends import Backend, load_backend
from edge.bundle import Bundle
from edge.manifest import Tensor
from edge.onnx_file import OnnxValue, describe_onnx, onnx_signature
from edge.pipeline import Pipeline
from edge.runtimes import import_runtime
from edge.selftest import SelfTest
from edge.target import Target, Tolerance, machine

BUNDLE, ONNX = ".ebundle", ".onnx"
# Of a bare ONNX file; the first that is installed is taken for "auto".
RUNTIMES = ("onnxruntime", "openvino")
_NO_TOLERANCE = Tolerance(0.0, 0.0, "a bare ONNX file brings nothing to compare with")
_CHUNK = 1 << 20


def hash_model(path: Path) -> str:
    """The sha256 of all that `open_model` reads of a model: of an ONNX file with weights outside,
    the file and then those, by name.

    Raises:
        ValueError: it is no file of a kind that can be served.
        OSError: it cannot be read.
    """
    _check_suffix(path)
    if path.suffix == ONNX:
        return hash_contents(read_onnx(path))
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_onnx(path: Path) -> dict[str, bytes]:
    """An ONNX file and the weights beside it: name -> content, the model first.

    Raises:
        ValueError: it is no ONNX file, or names weights elsewhere than beside it.
        OSError: it cannot be read.
    """
    model = path.read_bytes()
    files = {path.name: model}
    for name in describe_onnx(model).external:
        if Path(name).name != name or name in (".", "..", path.name):
            raise ValueError(
                f"{path} keeps weights in {name!r}; only a file beside it is read, save it again"
            )
        files[name] = (path.parent / name).read_bytes()
    return files


def hash_contents(files: Mapping[str, bytes]) -> str:
    """The sha256 of what `read_onnx` read."""
    digest = hashlib.sha256()
    for content in files.values():
        digest.update(content)
    return digest.hexdigest()


def open_model(path: Path, sha256: str, target: str = "auto", threads: int | None = 1) -> Pipeline:
    """Load a model file and try it.

    Args:
        path: an .ebundle, whose signatures are checked, or an .onnx.
        sha256: as `hash_model` gives it; "" takes what is there.
        target: a target's id of a bundle; of an ONNX file the runtime; "auto": the first that fits.
        threads: of one inference.
    Returns:
        the pipeline; that of an ONNX file has no steps, and its axes have the names in the file.
    Raises:
        ValueError: another file than meant, not to be trusted, of a kind that no runtime here
            takes, or its self-test failed.
        OSError: it cannot be read.
    """
    _check_suffix(path)
    if path.suffix == BUNDLE:
        if sha256:
            _check_hash(path, hash_model(path), sha256)
        # A file that is changed from here on is refused by the signed hashes inside.
        return Pipeline.open(Bundle.open(path), target, threads)
    files = read_onnx(path)
    if sha256:
        _check_hash(path, hash_contents(files), sha256)
    return _open_onnx(path.name, files, target, threads)


def _open_onnx(
    name: str, files: Mapping[str, bytes], runtime: str, threads: int | None
) -> Pipeline:
    found_inputs, found_outputs = onnx_signature(files[name])
    inputs = _inputs(name, found_inputs)
    target = Target(
        id=f"{machine()}-{name}",
        arch=machine(),
        backend=_runtime(runtime),
        accelerator="cpu",
        precision=describe_onnx(files[name]).precision,
        model=name,
        state="verified",
        tolerance=_NO_TOLERANCE,
    )
    backend = load_backend(files, target, threads=threads)
    try:
        samples = find_samples(inputs, backend.run)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    outputs = _outputs(name, found_outputs, backend, samples)
    tested = SelfTest(1, {}, _NO_TOLERANCE)
    return Pipeline(target, backend, inputs, outputs, (), (), tested)


def _inputs(name: str, found: tuple[OnnxValue, ...]) -> tuple[Tensor, ...]:
    tensors = []
    for value in found:
        if value.shape is None or not value.dtype:
            raise ValueError(
                f"{name}: input {value.name!r} does not say its type and number of axes; export it "
                "with a shape, names for the open axes"
            )
        tensors.append(Tensor(value.name, _dtype(name, value), _shape(value, value.shape)))
    return tuple(tensors)


def _outputs(
    name: str, found: tuple[OnnxValue, ...], backend: Backend, samples: Samples
) -> tuple[Tensor, ...]:
    """Outputs as they come: what the file does not say, or says wrongly, two runs show."""
    one = samples.outputs
    batch = batch_axis(samples.inputs)
    more: Mapping[str, np.ndarray] = {}
    # Whether it is right where all are said to have it, `batch_obstacle` sees.
    if batch and not all(value.shape and value.shape[0] == batch for value in found):
        try:
            more = backend.run(samples.rows(2))
        except ValueError:
            # Open by its signature, fixed by its nodes: `batch_obstacle` says so of the inputs.
            more = {}
    tensors = []
    for value in found:
        array = one[value.name]
        shape = _shape(value, value.shape if value.shape is not None else array.shape)
        if len(shape) != array.ndim:
            shape = tuple(array.shape)
        if more and array.ndim and len(array) == 1 and len(more[value.name]) == 2:
            shape = (batch, *shape[1:])
        dtype = _dtype(name, value) if value.dtype else str(array.dtype)
        if dtype != array.dtype:
            raise ValueError(
                f"{name}: output {value.name!r} is {array.dtype}, the file says {dtype}; export it "
                "again"
            )
        tensors.append(Tensor(value.name, dtype, shape))
    return tuple(tensors)


def _dtype(name: str, value: OnnxValue) -> str:
    if value.dtype == "string":
        raise ValueError(
            f"{name}: {value.name!r} holds texts; export the model with numbers at its ends"
        )
    try:
        np.dtype(value.dtype)
    except TypeError:
        raise ValueError(
            f"{name}: {value.name!r} is of type {value.dtype}, which numpy has not; export "
            "the model with another type at its ends"
        ) from None
    return value.dtype


def _shape(value: OnnxValue, shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    # An open axis without a name is the batch where it is the first, and like no other elsewhere.
    return tuple(
        axis if axis != "" else "batch" if at == 0 else f"{value.name}_{at}"
        for at, axis in enumerate(shape)
    )


def _runtime(name: str) -> str:
    if name == "auto":
        there = [runtime for runtime in RUNTIMES if importlib.util.find_spec(runtime)]
        return there[0] if there else RUNTIMES[0]
    if name not in RUNTIMES:
        raise ValueError(f"target={name!r} is not one of auto, {', '.join(RUNTIMES)}")
    return name


def import_likely_runtime(target: str) -> None:
    """Import what a model for this target most probably needs, if it is there."""
    if target in ("auto", *RUNTIMES):
        runtime = _runtime(target)
        if importlib.util.find_spec(runtime):
            import_runtime(runtime)


def _check_suffix(path: Path) -> None:
    if path.suffix not in (BUNDLE, ONNX):
        raise ValueError(f"{path} is neither an {ONNX} nor an {BUNDLE} file; convert it first")
    if not path.is_file():
        there = os.path.lexists(path)
        raise ValueError(
            f"{path} {'is no regular file' if there else 'does not exist'}; name a model file"
        )


def _check_hash(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise ValueError(
            f"{path.name} has sha256 {found[:12]}…, {wanted[:12]}… is meant; it changed meanwhile"
        )
