"""OpenVINO on one device, in the precision a target names; it would pick its own otherwise.

Options of a target: `properties` (of the compiled model, by OpenVINO's names), `outputs` and
`inputs` (names in the order of the model, where it has several for one).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from edge.backends import Arrays, Facts
from edge.onnx_file import describe_onnx
from edge.runtimes import import_runtime
from edge.target import Target

DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
# What runs between the quantised parts of an int8 model is float32.
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
PRECISIONS = {"f32": "float32", "float": "float32", "bf16": "bfloat16", "f16": "float16"}
OPTIONS = ("properties", "outputs", "inputs")


class OpenvinoBackend:
    """A compiled model on one device."""

    def __init__(
        self,
        compiled: Any,
        facts: Facts,
        names: tuple[tuple[str, ...], ...],
        compile_part: Callable[[Sequence[str]], Any],
    ) -> None:
        self.facts = facts
        self._compile_part = compile_part
        self.input_names, self.output_names = names
        self._dtypes = [np.dtype(port.get_element_type().to_dtype()) for port in compiled.inputs]
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request runs once at a time

    def part(self, outputs: Sequence[str]) -> OpenvinoBackend:
        """The same model compiled again for some of its outputs; the rest is not computed.

        Raises:
            ValueError: an output is not the model's.
        """
        unknown = sorted(set(outputs) - set(self.output_names))
        if unknown or not outputs:
            raise ValueError(f"outputs={list(outputs)} are not of the model's {self.output_names}")
        names = (self.input_names, tuple(outputs))
        return OpenvinoBackend(self._compile_part(outputs), self.facts, names, self._compile_part)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Outputs by name.

        Raises:
            ValueError: names or types are not the model's, or the runtime failed.
        """
        if set(inputs) != set(self.input_names):
            raise ValueError(f"inputs={sorted(inputs)} are not the model's {self.input_names}")
        arrays = []
        for name, dtype in zip(self.input_names, self._dtypes, strict=True):
            if inputs[name].dtype != dtype:
                raise ValueError(f"input {name!r} has dtype {inputs[name].dtype}, not {dtype}")
            arrays.append(inputs[name])
        try:
            with self._lock:
                results = self._request.infer(arrays, share_inputs=True, share_outputs=True)
                return {name: np.array(results[at]) for at, name in enumerate(self.output_names)}
        except Exception as error:
            raise ValueError(f"openvino could not run the model: {_last_line(error)}") from error


def load(files: Mapping[str, bytes], target: Target, threads: int | None) -> OpenvinoBackend:
    """Compile an ONNX model, or an .xml with the .bin beside it; see `BackendModule.load`."""
    openvino: Any = import_runtime("openvino")
    unknown = sorted(set(target.options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"target {target.id!r} has option {unknown[0]!r}, not one of {OPTIONS}")
    hint = HINTS.get(target.precision)
    if hint is None:
        raise ValueError(
            f"target {target.id!r} has precision={target.precision!r}, not one of "
            f"{', '.join(HINTS)}; convert it again"
        )
    core = openvino.Core()
    device = DEVICES.get(target.accelerator)
    if device is None or device not in [name.split(".")[0] for name in core.available_devices]:
        raise ValueError(
            f"target {target.id!r} asks for accelerator={target.accelerator!r}, openvino has "
            f"{', '.join(core.available_devices)} here; use another target"
        )
    model, names = _read(core, files, target)
    if _is_quantised(model) != (target.precision == "int8"):
        raise ValueError(
            f"target {target.id!r} has precision={target.precision!r}, {target.model} is "
            f"{'' if _is_quantised(model) else 'not '}quantised; convert it again"
        )
    properties = {
        **target.options.get("properties", {"PERFORMANCE_HINT": "LATENCY"}),
        "INFERENCE_PRECISION_HINT": hint,
        "CACHE_DIR": "",
    }
    if threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = core.compile_model(model, device, properties)
    except RuntimeError as error:
        raise ValueError(
            f"target {target.id!r}: openvino cannot compile {target.model} for {device}: "
            f"{_last_line(error)}"
        ) from error
    facts = _facts(openvino, compiled, target, device, hint)

    def compile_part(outputs: Sequence[str]) -> Any:
        ports = [model.outputs[names[1].index(name)] for name in outputs]
        part = openvino.Model(ports, model.get_parameters(), model.get_friendly_name())
        return core.compile_model(part, device, properties)

    return OpenvinoBackend(compiled, facts, names, compile_part)


def _read(core: Any, files: Mapping[str, bytes], target: Target) -> tuple[Any, Any]:
    path = PurePosixPath(target.model)
    inputs, outputs = target.options.get("inputs"), target.options.get("outputs")
    weights = b""
    if path.suffix == ".xml":
        beside = str(path.with_suffix(".bin"))
        if beside not in files:
            raise ValueError(f"target {target.id!r}: {beside} is missing; copy the bundle again")
        weights = files[beside]
    else:
        facts = describe_onnx(files[target.model])
        if facts.external:
            raise ValueError(
                f"target {target.id!r}: {target.model} keeps weights in {facts.external[0]!r}, "
                "which openvino cannot read from memory; convert it to openvino's own format"
            )
        inputs, outputs = inputs or facts.inputs, outputs or facts.outputs
    try:
        model = core.read_model(files[target.model], weights)
    except RuntimeError as error:
        raise ValueError(
            f"target {target.id!r}: openvino cannot read {target.model}: {_last_line(error)}"
        ) from error
    return model, (_names(model.inputs, inputs, target), _names(model.outputs, outputs, target))


def _names(ports: Sequence[Any], wanted: Sequence[str] | None, target: Target) -> tuple[str, ...]:
    # A port may have many names; without a list the shortest is taken, the same in every process.
    found = [sorted(port.get_names(), key=lambda name: (len(name), name)) for port in ports]
    if wanted is None:
        wanted = [names[0] if names else "" for names in found]
    for name, names in zip(wanted, found, strict=False):
        if name not in names:
            raise ValueError(
                f"target {target.id!r}: {target.model} has {names} where {name!r} is expected; "
                "convert it again"
            )
    if len(wanted) != len(found):
        raise ValueError(f"target {target.id!r}: {target.model} lacks one of {list(wanted)}")
    return tuple(wanted)


def _is_quantised(model: Any) -> bool:
    for op in model.get_ops():
        kind = op.get_type_name()
        if kind == "FakeQuantize":
            return True
        if kind == "Constant" and op.get_element_type().get_type_name() in ("i8", "u8", "i4", "u4"):
            return True
    return False


def _facts(openvino: Any, compiled: Any, target: Target, device: str, hint: str) -> Facts:
    read = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if read != hint:
        raise ValueError(
            f"target {target.id!r} asks for precision={target.precision!r}, openvino took "
            f"{PRECISIONS.get(read, read)}; use another target on this device"
        )
    devices = [name.split(".")[0] for name in compiled.get_property("EXECUTION_DEVICES")]
    if devices != [device]:
        raise ValueError(f"target {target.id!r} asks for {device}, openvino took {devices}")
    precision = target.precision if target.precision == "int8" else PRECISIONS[read]
    return Facts("openvino", openvino.__version__.split("-")[0], device, precision)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
