"""Files to serve: their names, a private copy of each, and what a request must look like."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.schedule.model_file import BUNDLE, hash_model, open_model
from core.schedule.trial import describe, find_samples
from core.serve.config import INLINE_S, ModelFile, ServeConfig
from core.serve.engine import Arrays, ModelState, Served
from core.serve.errors import BadRequest, TooLarge
from edge.bundle import Bundle
from edge.manifest import Manifest, Tensor
from edge.pipeline import Pipeline, check_inputs

# As a manifest names things; it stands in URLs and in metrics.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# A larger file is no model of INLINE_S, for its weights alone take longer to read; it is not opened
# in the server's process to find that out, and its workers start at once.
MAX_INLINE_BYTES = 8 << 20
TRIES = 20
# File systems tell times in steps; what was written this long ago can be told from a later write.
GRAIN_NS = 50_000_000


def parse_model(text: str) -> ModelFile:
    """`path` or `name=path` or `name@version=path`, as a command line has it.

    Raises:
        ValueError: the file is not there, or the name cannot stand in a URL.
    """
    path, name, version = Path(text), "", ""
    if "=" in text and not path.exists():
        name, _, rest = text.partition("=")
        name, _, version = name.partition("@")
        path = Path(rest)
    if not path.exists():
        raise ValueError(f"{path} does not exist; name an .onnx file or an .ebundle")
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "model"
    for what, value in (("name", name), ("version", version or "1")):
        if not _NAME.fullmatch(value):
            raise ValueError(
                f"{what}={value!r} of {path} is not 1 to 100 of A-Z a-z 0-9 . _ - after a letter "
                "or digit; give another as name=path"
            )
    return ModelFile(name, path, version)


@dataclass(frozen=True)
class Content:
    """What a file held at one moment; whoever opens it later says the hash again."""

    path: Path
    sha256: str  # of all that is read of it
    manifest: Manifest | None  # of a bundle


def read_content(path: Path) -> Content:
    """Hash a file and check a bundle's signatures; the model inside is not opened.

    Raises:
        ValueError: it is not there or no model, a bundle is not trusted, or it changed meanwhile.
    """
    before = signature(path)
    try:
        sha256 = hash_model(path)
        manifest = Bundle.open(path).manifest if path.suffix == BUNDLE else None
        is_young = time.time_ns() - max(before[2:], default=0) < GRAIN_NS
        if signature(path) != before or (is_young and hash_model(path) != sha256):
            raise ValueError(f"{path} changed while it was read; write it whole, then rename it")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    return Content(path, sha256, manifest)


def signature(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced; () when it is not there."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def is_for_workers(path: Path, config: ServeConfig) -> bool:
    """It needs no look inside to know that a model does not run in the server's process."""
    if config.isolation == "auto":
        return path.is_file() and path.stat().st_size > MAX_INLINE_BYTES
    return config.isolation == "process"


def open_inline(content: Content, config: ServeConfig) -> tuple[Pipeline, dict[str, Any]] | None:
    """Open a model for the server's own process; None: it belongs into workers.

    Returns:
        the pipeline and what `core.schedule.trial.describe` says of it.
    Raises:
        ValueError: it cannot be opened, or its self-test failed.
    """
    if is_for_workers(content.path, config):
        return None
    pipeline = open_model(content.path, content.sha256, config.device, threads=1)
    if config.isolation == "auto" and _cost_s(pipeline) >= INLINE_S:
        return None
    return pipeline, describe(pipeline, config.max_batch)


def _cost_s(pipeline: Pipeline) -> float:
    """The least of several runs: what the machine does besides is not the model's."""
    try:
        sample = find_samples(pipeline.inputs, pipeline.predict).rows(1)
    except ValueError:
        # Nothing is known of it; a worker can die of it without harm.
        return INLINE_S
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        pipeline.predict(sample)
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 2 and min(seconds) > 5 * INLINE_S:
            break
    return min(seconds)


@dataclass(frozen=True)
class Description:
    """What a loaded model says of itself."""

    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    text: str = ""

    def served(self, name: str, version: str, state: ModelState, reason: str = "") -> Served:
        """The entry of a catalogue."""
        return Served(
            name,
            version,
            self.platform,
            self.inputs,
            self.outputs,
            self.max_batch,
            state,
            reason,
            self.text,
        )

    def check(self, arrays: Arrays) -> int:
        """Make sure that a request is what the model takes; its rows.

        Raises:
            BadRequest: an input is missing, unknown, or of another type or shape; it is named.
            TooLarge: it has more rows than are taken at once.
        """
        try:
            check_inputs(arrays, self.inputs)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if self.max_batch == 1 or not self.inputs:
            return 1
        first = self.inputs[0].name
        rows = int(np.shape(arrays[first])[0])
        if rows == 0:
            raise BadRequest(f"input {first!r} has 0 rows; send at least one")
        if rows > self.max_batch:
            raise TooLarge(
                f"input {first!r} has {rows} rows, one request may have {self.max_batch}; "
                "send several requests, or serve with a larger max_batch"
            )
        return rows


def choose_version(content: Content, wanted: str, taken: set[str]) -> str:
    """The version of a file: as configured, or a bundle's own, or the next number.

    Where that one is still loaded with another content, the content's hash tells them apart.
    """
    own = wanted or (content.manifest.version if content.manifest else "")
    if not own:
        numbers = [int(version) for version in taken if version.isdecimal()]
        return str(max(numbers, default=0) + 1)
    return own if own not in taken else f"{own}-{content.sha256[:8]}"
