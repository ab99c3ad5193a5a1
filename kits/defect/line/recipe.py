"""What one product needs on the line, in one file. Standard library and numpy; nothing is pickled.

The file is a zip: `recipe.json`, and one `.npy` for each array that was learned from good parts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
EVERY = "*"
MOST_GAIN = 1.25  # that makes up for a darker lamp
MAX_JSON_BYTES = 1 << 20
MAX_ARRAY_BYTES = 1 << 28

Point = tuple[float, float]  # x, y in pixels of a frame


@dataclass(frozen=True)
class Zone:
    """A polygon of the frame with rules of its own."""

    name: str
    polygon_px: tuple[Point, ...]
    # Nothing in here is looked at: a fixture, a label.
    is_ignored: bool = False

    def __post_init__(self) -> None:
        """Check that this is an area with a name."""
        if not self.name or self.name == EVERY:
            raise ValueError(f"zone.name={self.name!r} names no one zone; give it a word")
        if len(self.polygon_px) < 3:
            raise ValueError(
                f"zone {self.name}: polygon_px has {len(self.polygon_px)} corners; give 3 or more"
            )


@dataclass(frozen=True)
class Rule:
    """What is tolerated of one class in one zone; a limit of None limits nothing.

    A defect is tolerated if a rule fits its class and zone, and it keeps every limit of each rule
    that fits; a defect that no rule fits makes the part NG.
    """

    defect: str = EVERY
    zone: str = EVERY
    max_length_mm: float | None = None
    max_width_mm: float | None = None
    max_area_mm2: float | None = None
    # Of defects that keep the other limits, on one part.
    max_count: int | None = None

    def __post_init__(self) -> None:
        """Check the limits."""
        for name in ("max_length_mm", "max_width_mm", "max_area_mm2", "max_count"):
            limit = getattr(self, name)
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise ValueError(f"rule.{name}={limit} is not a limit; give 0 or more, or null")


@dataclass(frozen=True)
class Limits:
    """From which on a cell is flagged; `kernels.triage` says what is counted."""

    # Blocks of 2x2 pixels that leave the envelope by more than so many grey levels: a few that
    # leave it far, or many that leave it slightly.
    outside_blocks: int = 1
    outside_levels: int = 128
    slight_blocks: int = 8
    slight_levels: int = 100
    # Blocks on ridges where good parts have none; a ridge stands out from both its sides by more
    # than so many grey levels, for ridges that run horizontally, vertically, falling, rising.
    ridge_blocks: int = 8
    ridge_contrasts: tuple[int, int, int, int] = (255, 255, 255, 255)
    # Grey levels by which a cell's mean may differ from what was learned, both ways.
    stain_levels: float = 255.0
    # Grey levels between part and template above which there is no such part.
    mismatch_levels: float = 255.0
    # By how much a darker or brighter lamp is made up for; 1: not at all, as for black and white.
    most_gain: float = MOST_GAIN

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("outside_blocks", "slight_blocks", "ridge_blocks", "stain_levels"):
            if not getattr(self, name) > 0:
                raise ValueError(f"limits.{name}={getattr(self, name)} is not positive")
        if not 1 <= self.most_gain <= 2:
            raise ValueError(f"limits.most_gain={self.most_gain} is not from 1 to 2")
        levels = (self.slight_levels, self.outside_levels, *self.ridge_contrasts)
        if len(levels) != 6 or not 0 <= min(levels) <= max(levels) <= 255:
            raise ValueError(f"limits have levels={levels}, not six in 0..255")
        if self.slight_levels > self.outside_levels:
            raise ValueError(
                f"limits.slight_levels={self.slight_levels} is above "
                f"outside_levels={self.outside_levels}"
            )


@dataclass(frozen=True, eq=False)
class Recipe:
    """One product on one camera."""

    product: str
    width_px: int
    height_px: int
    mm_per_px: float
    smallest_defect_mm: float
    zones: tuple[Zone, ...] = ()
    rules: tuple[Rule, ...] = ()
    # From trigger to verdict; later means UNINSPECTED.
    deadline_ms: float = 500.0
    # What the detector looks at, and how far its tiles overlap around what was flagged.
    tile_px: int = 320
    halo_px: int = 64
    # Of the cells that were not flagged, how many the detector sees all the same.
    audit_share: float = 0.01
    # The detector that it was learned with; null: any.
    detector_sha256: str | None = None
    limits: Limits = field(default_factory=Limits)
    # Name -> what the triage learned from good parts; see `envelope.py`. Empty: no triage yet.
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    # What it was learned from and what it cannot promise, in words and numbers for a person.
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check single values and pairs."""
        for name in ("width_px", "height_px", "mm_per_px", "smallest_defect_mm", "deadline_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"recipe.{name}={value} is not positive; set {name}")
        if self.tile_px < 32 or not 0 <= self.halo_px < self.tile_px / 2:
            raise ValueError(
                f"recipe.halo_px={self.halo_px} does not fit into tile_px={self.tile_px}; "
                "give a tile from 32 and a halo below half of it"
            )
        if not 0 <= self.audit_share <= 1:
            raise ValueError(f"recipe.audit_share={self.audit_share} is not in 0..1")
        names = [zone.name for zone in self.zones]
        if len(set(names)) < len(names):
            raise ValueError(f"recipe.zones={names} name one twice; give each its own name")
        for rule in self.rules:
            if rule.zone not in (EVERY, *names):
                raise ValueError(f"rule.zone={rule.zone!r} is not one of {', '.join(names)}, *")


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe so that a crash leaves the old file or the new one; one content, one file."""
    settings = {
        entry.name: getattr(recipe, entry.name)
        for entry in dataclasses.fields(recipe)
        if entry.name != "arrays"
    }
    settings |= {
        "zones": [dataclasses.asdict(zone) for zone in recipe.zones],
        "rules": [dataclasses.asdict(rule) for rule in recipe.rules],
        "limits": dataclasses.asdict(recipe.limits),
        "notes": dict(recipe.notes),
    }
    members = {f"{name}.npy": _array_bytes(array) for name, array in sorted(recipe.arrays.items())}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    document = {"format": FORMAT, "arrays_sha256": hashes, "recipe": settings}
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    part = path.with_name(f".part-{path.name}")
    with part.open("wb") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in {"recipe.json": text.encode(), **members}.items():
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content, compresslevel=1)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        ValueError: the file is damaged, of another format, or breaks a rule; it names what.
        FileNotFoundError: there is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(_member(archive, "recipe.json", MAX_JSON_BYTES))
            arrays = {
                name.removesuffix(".npy"): _array(archive, name, sha256)
                for name, sha256 in document["arrays_sha256"].items()
            }
        if document["format"] != FORMAT:
            raise ValueError(f"format={document['format']} is not {FORMAT}; learn it again")
        return _recipe(document["recipe"], arrays)
    except (zipfile.BadZipFile, KeyError, TypeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no usable recipe: {error}") from error


def fingerprint(path: Path) -> str:
    """sha256 of a recipe's file: what the ledger names."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _recipe(settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Recipe:
    zones = tuple(
        Zone(zone["name"], tuple((float(x), float(y)) for x, y in zone["polygon_px"]),
             bool(zone["is_ignored"]))
        for zone in settings["zones"]
    )  # fmt: skip
    parts = {
        "zones": zones,
        "rules": tuple(Rule(**rule) for rule in settings["rules"]),
        "limits": _limits(settings["limits"]),
    }
    return Recipe(**(settings | parts), arrays=arrays)


def _limits(settings: dict[str, Any]) -> Limits:
    return Limits(**(settings | {"ridge_contrasts": tuple(settings["ridge_contrasts"])}))


def _array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _array(archive: zipfile.ZipFile, name: str, sha256: str) -> np.ndarray:
    content = _member(archive, name, MAX_ARRAY_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{name} has sha256 {found[:12]}, it says {sha256[:12]}; copy it again")
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > max_bytes:
        raise ValueError(f"{name} has {size} bytes, more than {max_bytes}")
    return archive.read(name)
