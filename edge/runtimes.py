"""Runtimes, imported so that they tell nobody: theirs report use to their makers by default.

ONNX Runtime begins when it is imported (an identifier in the home folder, then the network), and
what its own function switches off later is too late; OpenVINO's Python package does it through
another package, and does without it where that is missing.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

INSTALL = {"onnxruntime": ".[edge]"}


def import_runtime(name: str) -> ModuleType:
    """The package of a runtime, its reports of use cut off.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to install.
    """
    cut_off_reports()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} is not installed ({error}); pip install {INSTALL.get(name, name)}"
        ) from None


def cut_off_reports() -> None:
    """What `import_runtime` does first, for code that imports a runtime's parts by name."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
