"""The session all peers call: one thread, on the CPU."""

from __future__ import annotations

from typing import Any

from edge.runtimes import import_runtime


def open_session(path: str, threads: int = 1) -> Any:
    """An ONNX Runtime session with the settings the project's own backend has."""
    ort = import_runtime("onnxruntime")
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
