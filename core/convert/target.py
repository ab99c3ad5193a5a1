"""What every conversion target has; `core/convert/targets/<name>.py` each hold one as CONVERTER."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.convert.source import Arrays, Source
from edge.target import Target


@dataclass(frozen=True)
class Options:
    """What a caller may ask of a target; each target says in its docstring what it reads."""

    precision: str = "float32"
    device: str = ""  # soc or compute capability: "Ascend310P3", "orin", "sm_89"
    calibration: Mapping[str, Any] | None = None  # input -> (n, ...) array, real samples
    values: Mapping[str, Any] = field(default_factory=dict)  # anything else, by name


class Runner(Protocol):
    """A converted model that can be run here."""

    facts: Mapping[str, str]  # backend, runtime, provider, precision as the runtime reports them

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        ...


@dataclass(frozen=True)
class Artifact:
    """What a target made in a folder."""

    target: Target  # target.model is the main file's name, relative to `folder`
    folder: Path
    files: tuple[str, ...]  # everything it consists of, relative to `folder`
    is_reproducible: bool = True  # two builds give equal bytes; engines of vendors do not
    notes: tuple[str, ...] = ()  # for people: what is missing here, which operators are unsupported

    @property
    def path(self) -> Path:
        """The main file."""
        return self.folder / self.target.model


class Converter(Protocol):
    """One target. A converter is a module-level value without state."""

    name: str  # as users type it: "onnx", "openvino", "ascend"
    suffix: str  # of the main file, with the dot
    ids: tuple[str, ...]  # the target ids it makes, the default first

    def convert(
        self, source: Source, onnx: Path, folder: Path, target_id: str, options: Options
    ) -> Artifact:
        """Write the artifact into an empty folder.

        Args:
            source: the model; targets that need torch (aoti, executorch) read its module.
            onnx: the portable model, exported from the source and proven equal already.
            folder: where to write; the main file is `<source.name><suffix>`.
            target_id: one of `ids`.
            options: what was asked for.

        Raises:
            ValueError: the model cannot become this target; the message names the operators.
            ModuleNotFoundError: the target's package is not installed; names the extra.
        """
        ...

    def open(self, artifact: Artifact) -> Runner | None:
        """Load the artifact to compare it; None where nothing here can run it (state says why)."""
        ...


def find_converter(name: str) -> Converter:
    """The converter of a target.

    Raises:
        ValueError: no such target.
    """
    from core.convert import targets

    names = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
    if name not in names:
        raise ValueError(f"output_format={name!r} is not one of {', '.join(names)}")
    converter: Converter = importlib.import_module(f"core.convert.targets.{name}").CONVERTER
    return converter


def converter_of(target_id: str) -> Converter:
    """The converter that makes a target id, as `x86_64-ort-cpu`.

    Raises:
        ValueError: no converter makes it.
    """
    from core.convert import targets

    names = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
    found = {id_: find_converter(name) for name in names for id_ in find_converter(name).ids}
    if target_id not in found:
        raise ValueError(f"target={target_id!r} is not one of {', '.join(sorted(found))}")
    return found[target_id]
