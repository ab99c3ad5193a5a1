"""Runtimes behind one interface: `edge/backends/<name>.py` each, imported only when used."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.target import Target

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Facts:
    """What a loaded model really runs on, as its runtime says after loading."""

    backend: str
    runtime: str  # version
    provider: str  # CPUExecutionProvider, CPU, ...
    precision: str  # float32, bfloat16, ...


class Backend(Protocol):
    """A loaded model."""

    facts: Facts
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """All outputs by name, for inputs by name, of any sizes the model allows."""
        ...


class BackendModule(Protocol):
    """What each `edge/backends/<name>.py` has."""

    def load(self, files: Mapping[str, bytes], target: Target, threads: int | None) -> Backend:
        """Load a model and make sure that provider and precision are the target's.

        Args:
            files: path -> content of what the target names; `target.model` is one of them, files
                beside it (weights) are the others.
            target: which provider, precision and options.
            threads: of one inference; None leaves it to the runtime.

        Raises:
            ValueError: the runtime took another provider or precision, or cannot load the file.
            ModuleNotFoundError: the runtime is not installed; the message names the extra.
        """
        ...


def load_backend(
    files: Mapping[str, bytes], target: Target, *, threads: int | None = None
) -> Backend:
    """Load what a target names with its backend.

    Raises:
        ValueError: no such backend, or it cannot do what the target asks for; it never falls back.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if target.backend not in names:
        raise ValueError(
            f"target {target.id!r} has backend={target.backend!r}, this version has "
            f"{', '.join(names)}; install a newer version"
        )
    module: BackendModule = importlib.import_module(f"edge.backends.{target.backend}")
    return module.load(files, target, threads)
