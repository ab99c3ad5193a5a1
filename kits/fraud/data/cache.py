"""Events kept on disk: one memory-mapped .npy file per column, checked by fingerprint."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from kits.fraud.data.events import COLUMNS, Events, fingerprint_columns
from kits.fraud.data.progress import say

FACTS = (
    "entity_roles",
    "entity_kinds",
    "categorical_names",
    "numeric_names",
    "pattern_names",
    "clock",
    "name",
)
META = "meta.json"
Build = Callable[[Path], dict[str, Any]]


def cache_folder(cache: Path, key: Mapping[str, Any]) -> Path:
    """Return the folder of the events that the key decides."""
    text = json.dumps(dict(key), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cache / "fraud" / f"{key['name']}-{digest}"


def cached_events(cache: Path, key: Mapping[str, Any], build: Build) -> Events:
    """Return stored events, building them first where none are stored or the files changed.

    Args:
        cache: the cache folder.
        key: everything that decides the events: "name" of the source, its version, its settings.
        build: writes `<column>.npy` files into the folder it is given and returns the facts
            of `Events` that are not arrays.

    Returns:
        the events, columns memory-mapped and read-only.

    Raises:
        ValueError: the cache folder cannot be written.
    """
    folder = cache_folder(cache, key)
    events = _open(folder)
    if events is not None:
        return events
    with _new_folder(folder, cache) as temporary:
        facts = build(temporary)
        meta = {
            "key": dict(key),
            "fingerprint": fingerprint_columns(map_columns(temporary)),
            "facts": {name: facts[name] for name in FACTS},
        }
        (temporary / META).write_text(json.dumps(meta, indent=1))
    events = _open(folder)
    if events is None:
        raise ValueError(f"data.cache_dir={str(cache)!r} does not keep what is written; change it")
    return events


def write_columns(folder: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write whole columns as .npy files."""
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", column)


def map_columns(folder: Path) -> dict[str, np.ndarray]:
    """Open the columns of a folder read-only, without reading them."""
    return {name: _map_array(folder / f"{name}.npy") for name in COLUMNS}


def _map_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r")
    except ValueError:
        # An array without elements cannot be mapped.
        array = np.load(path)
    return array


def _open(folder: Path) -> Events | None:
    if not (folder / META).is_file():
        return None
    try:
        meta = json.loads((folder / META).read_text())
        columns = map_columns(folder)
        is_same = fingerprint_columns(columns) == meta["fingerprint"]
    except (OSError, ValueError, KeyError) as error:
        say(f"{folder}: {error}")
        is_same = False
    if not is_same:
        say(f"{folder} is not what was stored there; making it again")
        return None
    facts = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["facts"].items()}
    return Events(**columns, **facts, fingerprint=meta["fingerprint"])


@contextmanager
def _new_folder(folder: Path, cache: Path) -> Iterator[Path]:
    """Give a temporary folder that takes its final name in one step, when all went well."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"data.cache_dir={str(cache)!r} cannot be written, {error.strerror}; set data.cache_dir"
        ) from error
    try:
        yield temporary
        _take_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, folder: Path) -> None:
    # A folder cannot replace a filled one, so the old one steps aside first.
    aside = temporary.with_name(temporary.name + "-old")
    with suppress(FileNotFoundError):
        folder.rename(aside)
    try:
        temporary.rename(folder)
    except OSError:
        # Fine where another process was faster: the same key gives the same events.
        if not (folder / META).is_file():
            raise
    shutil.rmtree(aside, ignore_errors=True)
