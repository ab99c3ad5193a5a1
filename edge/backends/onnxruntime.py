"""ONNX Runtime, on the one provider a target names.

Options of a target: `provider` (else by its accelerator), `graph_optimization_level` (disable,
basic, extended, all; default all), `session_config` (entries of the session by name).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from edge.backends import Arrays, Facts
from edge.onnx_file import describe_onnx
from edge.runtimes import import_runtime
from edge.target import Target

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "ascend": "CANNExecutionProvider",
}
LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
OPTIONS = ("provider", "graph_optimization_level", "session_config")
ERRORS_ONLY = 3


class OrtBackend:
    """A session on one provider."""

    def __init__(self, session: Any, facts: Facts) -> None:
        self.facts = facts
        self.input_names = tuple(value.name for value in session.get_inputs())
        self.output_names = tuple(value.name for value in session.get_outputs())
        self._session = session

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Outputs by name.

        Raises:
            ValueError: the runtime refused the inputs or failed.
        """
        try:
            outputs = self._session.run(None, inputs)
        except Exception as error:
            raise ValueError(
                f"onnxruntime could not run the model: {_first_line(error)}"
            ) from error
        return dict(zip(self.output_names, outputs, strict=True))


def load(files: Mapping[str, bytes], target: Target, threads: int | None) -> OrtBackend:
    """Open an ONNX model with its outside weights, all from memory; see `BackendModule.load`."""
    ort: Any = import_runtime("onnxruntime")
    ort.disable_telemetry_events()
    provider = _provider(ort, target)
    options = _session_options(ort, target, threads)
    model = files[target.model]
    facts = describe_onnx(model)
    if facts.precision != target.precision:
        raise ValueError(
            f"target {target.id!r} has precision={target.precision!r}, {target.model} holds "
            f"{facts.precision}; convert it again with precision={target.precision}"
        )
    _give_weights(options, files, target, facts.external)
    try:
        session = ort.InferenceSession(model, options, providers=[provider])
    except Exception as error:
        raise ValueError(
            f"target {target.id!r}: onnxruntime {ort.__version__} cannot load {target.model}: "
            f"{_first_line(error)}"
        ) from error
    session.disable_fallback()
    found = session.get_providers()
    if found[:1] != [provider]:
        raise ValueError(
            f"target {target.id!r} asks for provider={provider!r}, onnxruntime fell back to "
            f"{', '.join(found)}; install what the provider needs, or use another target"
        )
    return OrtBackend(session, Facts("onnxruntime", ort.__version__, provider, facts.precision))


def _provider(ort: Any, target: Target) -> str:
    unknown = sorted(set(target.options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"target {target.id!r} has option {unknown[0]!r}, not one of {OPTIONS}")
    wanted = target.options.get("provider", PROVIDERS.get(target.accelerator))
    available = ort.get_available_providers()
    if wanted not in available:
        raise ValueError(
            f"target {target.id!r} asks for provider={wanted or target.accelerator!r}, this "
            f"onnxruntime {ort.__version__} has {', '.join(available)}; use another target"
        )
    return str(wanted)


def _session_options(ort: Any, target: Target, threads: int | None) -> Any:
    level = target.options.get("graph_optimization_level", "all")
    if level not in LEVELS:
        raise ValueError(
            f"target {target.id!r} has graph_optimization_level={level!r}, not one of "
            f"{', '.join(LEVELS)}"
        )
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = ERRORS_ONLY
    # On some ARM processors float32 products are otherwise free to be computed in bfloat16.
    pinned = {"mlas.enable_gemm_fastmath_arm64_bfloat16": "0"}
    for key, value in {**target.options.get("session_config", {}), **pinned}.items():
        try:
            options.add_session_config_entry(str(key), str(value))
        except RuntimeError as error:
            raise ValueError(
                f"target {target.id!r} has session_config={key[:80]!r}, refused: {error}"
            ) from error
    return options


def _give_weights(
    options: Any, files: Mapping[str, bytes], target: Target, names: tuple[str, ...]
) -> None:
    folder = PurePosixPath(target.model).parent
    missing = [name for name in names if str(folder / name) not in files]
    if missing:
        raise ValueError(
            f"target {target.id!r}: {target.model} keeps weights in {missing[0]!r}, which is not "
            "beside it; copy the bundle again"
        )
    if names:
        contents = [files[str(folder / name)] for name in names]
        options.add_external_initializers_from_files_in_memory(
            list(names), contents, [len(content) for content in contents]
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
