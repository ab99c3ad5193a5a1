"""TensorRT for RTX. Untested on hardware: no machine with such a card has run this file yet.

What is tested is the refusal: without a driver an engine is not even read. Running follows the
documented interface (IExecutionContext.execute_async_v3, cudart's copies). An engine tells the
type of its inputs and outputs and not that of its inner layers, so a precision other than theirs
is refused here, and the self-test's tolerance decides over the rest.

Options of a target: `inputs` and `outputs` (names that the engine must have).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.backends import Arrays, Facts
from edge.target import Target

PRECISIONS = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
MESSAGE_LENGTH = 600
OPTIONS = ("inputs", "outputs")


class TensorrtRtxBackend:
    """An engine with one execution context and stream. Untested on hardware."""

    def __init__(self, trt: Any, cudart: Any, engine: Any, facts: Facts) -> None:
        self.facts = facts
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        is_input = [engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        self.input_names = tuple(n for n, is_in in zip(names, is_input, strict=True) if is_in)
        self.output_names = tuple(n for n, is_in in zip(names, is_input, strict=True) if not is_in)
        self._dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        self._context = engine.create_execution_context()
        self._cudart = cudart
        self._engine = engine  # the context lives no longer than its engine
        self._stream = self._call("cudaStreamCreate")

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Outputs by name. Untested on hardware.

        Raises:
            ValueError: an input is not the engine's, or a call of the driver failed.
        """
        if set(inputs) != set(self.input_names):
            raise ValueError(f"inputs={sorted(inputs)} are not the engine's {self.input_names}")
        buffers: list[int] = []
        try:
            return self._run(inputs, buffers)
        finally:
            for buffer in buffers:
                self._call("cudaFree", buffer)

    def _run(self, inputs: Arrays, buffers: list[int]) -> dict[str, np.ndarray]:
        kinds = self._cudart.cudaMemcpyKind
        for name in self.input_names:
            array = np.ascontiguousarray(inputs[name])
            if array.dtype != self._dtypes[name]:
                raise ValueError(f"input {name!r} has {array.dtype}, not {self._dtypes[name]}")
            if not self._context.set_input_shape(name, array.shape):
                raise ValueError(f"input {name!r} has shape {array.shape}, outside the engine's")
            self._bind(name, array.nbytes, buffers)
            to_device = kinds.cudaMemcpyHostToDevice
            self._call("cudaMemcpy", buffers[-1], array.ctypes.data, array.nbytes, to_device)
        outputs, places = {}, {}
        for name in self.output_names:
            shape = tuple(self._context.get_tensor_shape(name))
            outputs[name] = np.empty(shape, self._dtypes[name])
            self._bind(name, outputs[name].nbytes, buffers)
            places[name] = buffers[-1]
        if not self._context.execute_async_v3(self._stream):
            raise ValueError("tensorrt_rtx could not run the engine; see its messages above")
        self._call("cudaStreamSynchronize", self._stream)
        for name, output in outputs.items():
            to_host = kinds.cudaMemcpyDeviceToHost
            self._call("cudaMemcpy", output.ctypes.data, places[name], output.nbytes, to_host)
        return outputs

    def _bind(self, name: str, size: int, buffers: list[int]) -> None:
        buffers.append(int(self._call("cudaMalloc", max(size, 1))))
        self._context.set_tensor_address(name, buffers[-1])

    def _call(self, function: str, *arguments: Any) -> Any:
        status, *values = getattr(self._cudart, function)(*arguments)
        if int(status) != 0:
            raise ValueError(f"{function} failed with {status}; check the driver")
        return values[0] if values else None


def load(files: Mapping[str, bytes], target: Target, threads: int | None) -> TensorrtRtxBackend:
    """Read an engine; see `BackendModule.load`. `threads` has no meaning on a GPU."""
    del threads
    try:
        trt = importlib.import_module("tensorrt_rtx")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"tensorrt_rtx is not installed ({error}); pip install .[rtx]"
        ) from None
    unknown = sorted(set(target.options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"target {target.id!r} has option {unknown[0]!r}, not one of {OPTIONS}")
    messages: list[str] = []
    runtime = trt.Runtime(_logger(trt, messages))
    engine = runtime.deserialize_cuda_engine(files[target.model])
    if engine is None:
        told = "; ".join(messages)[:MESSAGE_LENGTH] or "it gave no reason"
        raise ValueError(
            f"target {target.id!r}: tensorrt_rtx {trt.__version__} cannot open {target.model} on "
            f"this machine: {told}; it needs an NVIDIA RTX card, its driver, and an engine built "
            "for both"
        )
    try:
        cudart = importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"cuda.bindings is not installed ({error}); pip install cuda-bindings"
        ) from None
    facts = Facts("tensorrt_rtx", trt.__version__, "NvTensorRtRtx", _precision(engine))
    if facts.precision != target.precision:
        raise ValueError(
            f"target {target.id!r} asks for precision={target.precision!r}, {target.model} has "
            f"{facts.precision}; convert it again"
        )
    loaded = TensorrtRtxBackend(trt, cudart, engine, facts)
    for what, names in (("inputs", loaded.input_names), ("outputs", loaded.output_names)):
        if set(target.options.get(what, names)) != set(names):
            raise ValueError(
                f"target {target.id!r} has {what}={target.options[what]}, the engine has "
                f"{', '.join(names)}; convert it again"
            )
    return loaded


def _precision(engine: Any) -> str:
    names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
    types = {engine.get_tensor_dtype(name).name for name in names}
    found = sorted(PRECISIONS[name] for name in types if name in PRECISIONS)
    return found[0] if len(found) == 1 else "mixed"


def _logger(trt: Any, messages: list[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps errors; says nothing itself."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Called by the runtime."""
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                messages.append(" ".join(message.split()))

    return Logger()
