"""A converted model, run here by the very code that runs it on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from core.convert.source import Arrays
from core.convert.target import Artifact
from edge.backends import Backend, load_backend

# Versions of ONNX Runtime that read what is written here: 1.24.4 is the last one for Python 3.10
# and the one the arm64 root has; it loads what 1.32 fused, and computes the same.
ONNX_RUNTIME = ">=1.24.4"


class BackendRunner:
    """An edge backend as a `Runner`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.facts: Mapping[str, str] = asdict(backend.facts)

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        return self.backend.run(inputs)


def open_artifact(artifact: Artifact, *, threads: int | None = 1) -> BackendRunner:
    """Load an artifact's files with the edge backend of its target.

    One thread adds up in the same order every time, so that equal models give equal reports.

    Raises:
        ValueError: the runtime cannot load them, or took another provider or precision.
        ModuleNotFoundError: the runtime is not installed; the message names the extra.
    """
    files = {name: (artifact.folder / name).read_bytes() for name in artifact.files}
    return BackendRunner(load_backend(files, artifact.target, threads=threads))
