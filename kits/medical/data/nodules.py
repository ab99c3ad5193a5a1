"""Patches of LIDC-IDRI around one nodule each: `ct/`, `readers/` and `nodules.csv`, packed or not.

A patch is a tall 8-bit PNG, its slices below each other from low to high position; `readers/` holds
the readers' bits in the same shape. Each slice was scaled to 0..255 on its own, so Hounsfield units
are lost; what is given instead is said in `even.py`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from core.kit import Split
from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.config import NodulesData
from kits.medical.data.even import even_slices
from kits.medical.data.split import names_of
from kits.medical.data.votes import box_of, consensus, equivalent_diameter_mm, readers_of
from kits.medical.geometry import Grid, Triple, Volume

TABLE = "nodules.csv"
READERS = 4
COLUMNS = ("name", "patient", "readers", "pixel_spacing_mm", "slice_spacing_mm")
AXES = np.eye(3)[::-1]  # d grows to the head, h to the back, w to the left


class Row(NamedTuple):
    """What the table says of a nodule."""

    name: str
    patient: str
    num_readers: int
    spacing_mm: Triple
    texture: float | None
    malignancy: float | None


class Files(Protocol):
    """A folder, packed or not."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; ValueError where there is none."""
        ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise ValueError(
                f"data.path={str(self.path)!r} has no {name}; {TABLE} names it"
            ) from error


class _Zip:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                # Kept in memory: a few dozen MB, and processes that are forked share no position.
                contents = {name: archive.read(name) for name in names}
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is no zip file, {error}; copy it again") from error
        tables = [name for name in contents if Path(name).name == TABLE]
        if len(tables) != 1:
            raise ValueError(f"{path} holds {len(tables)} files {TABLE}, not one; choose another")
        self.root = tables[0].removesuffix(TABLE)
        self.contents = contents

    def read(self, name: str) -> bytes:
        if self.root + name not in self.contents:
            raise ValueError(f"{self.path} has no {name}; {TABLE} names it")
        return self.contents[self.root + name]


class NodulesCases:
    """Fills `Cases` from a folder or a zip file of that form."""

    name = "nodules"
    max_readers = READERS

    def __init__(self, cfg: NodulesData) -> None:
        self.cfg = cfg
        self.files = open_files(Path(cfg.path).expanduser())
        table = self.files.read(TABLE)
        self.rows = {row.name: row for row in read_table(table)}
        digest = hashlib.sha256(table)
        for name in sorted(self.rows):
            for file in (f"ct/{name}.png", f"readers/{name}.png"):
                digest.update(hashlib.sha256(self.files.read(file)).digest())
        self.fingerprint = digest.hexdigest()

    def names(self, split: Split) -> Sequence[str]:
        """Cases of a split, sorted."""
        return names_of(split, {row.name: row.patient for row in self.rows.values()}, self.cfg)

    def load(self, name: str) -> Case:
        """One patch with its one nodule."""
        row = self.rows[name]
        shades, votes = (self._image(f"{kind}/{name}.png") for kind in ("ct", "readers"))
        if shades.shape != votes.shape:
            raise ValueError(
                f"readers/{name}.png has shape={votes.shape}, ct/{name}.png {shades.shape}; "
                "a mask has the shape of its patch"
            )
        if votes.max() >= 1 << READERS or len(readers_of(votes)) > row.num_readers:
            raise ValueError(
                f"readers/{name}.png has value={votes.max()}, {TABLE} says {row.num_readers} "
                f"readers; bit k is reader k of {READERS}"
            )
        if not votes.any():
            raise ValueError(f"readers/{name}.png is empty; a nodule has at least one voxel")
        grid = Grid(shades.shape, row.spacing_mm, (0.0, 0.0, 0.0), AXES)
        window = box_of(votes)
        agreed = consensus(votes, readers_of(votes), row.num_readers)
        nodule = TrueNodule(
            name,
            window,
            votes[window],
            row.num_readers,
            equivalent_diameter_mm(agreed.sum() * grid.voxel_mm3),
            texture=row.texture,
            malignancy=row.malignancy,
        )
        volume = Volume(grid, even_slices(shades))
        return Case(name, row.patient, volume, (nodule,), extent="patch", intensity="slice")

    def _image(self, file: str) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(self.files.read(file))) as image:
                mode, pixels = image.mode, np.asarray(image)
        except OSError as error:
            raise ValueError(f"{file} is no image, {error}; copy it again") from error
        if mode != "L":
            raise ValueError(f"{file} has mode={mode}, not 8 bits of grey (L)")
        height, width = pixels.shape
        if height % width:
            raise ValueError(
                f"{file} is {height} rows of {width}; slices are square and below each other"
            )
        return pixels.reshape(-1, width, width)


def open_files(path: Path) -> Files:
    """A zip file, a folder with the table, or a folder with one zip file.

    Raises:
        ValueError: it is none of these.
    """
    if path.is_file():
        return _Zip(path)
    if (path / TABLE).is_file():
        return _Folder(path)
    packed = sorted(path.glob("*.zip"))
    if len(packed) != 1:
        raise ValueError(
            f"data.path={str(path)!r} holds no {TABLE} and {len(packed)} zip files; set data.path "
            f"to a folder with ct/, readers/ and {TABLE}, or to its zip file"
        )
    return _Zip(packed[0])


def read_table(table: bytes) -> list[Row]:
    """The rows of nodules.csv, checked.

    Raises:
        ValueError: a column is missing, a value is none, or a name is twice there.
    """
    reader = csv.DictReader(io.StringIO(table.decode("utf-8-sig")))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{TABLE} has no column {', '.join(missing)}; it needs {COLUMNS}")
    rows = [_row(number, raw) for number, raw in enumerate(reader, start=2)]
    if not rows:
        raise ValueError(f"{TABLE} has no rows; choose another data.path")
    names = [row.name for row in rows]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"{TABLE} names {double[0]} more than once; a name is one nodule")
    return rows


def _row(line: int, raw: dict[str, str]) -> Row:
    name = raw["name"]
    if not name or Path(name).name != name:
        raise ValueError(f"{TABLE} line {line}: name={name!r} is not a plain file name")
    if not raw["patient"]:
        raise ValueError(f"{TABLE} line {line}: patient is empty; splits are by patient")
    readers = _number(line, raw, "readers")
    if readers is None or readers not in range(1, READERS + 1):
        raise ValueError(f"{TABLE} line {line}: readers={raw['readers']!r} is not 1 to {READERS}")
    slices, pixels = (_number(line, raw, f"{kind}_spacing_mm") for kind in ("slice", "pixel"))
    if not (slices and pixels and 0 < slices < np.inf and 0 < pixels < np.inf):
        raise ValueError(f"{TABLE} line {line}: a spacing is not a positive number of millimetres")
    ratings = (_number(line, raw, "texture"), _number(line, raw, "malignancy"))
    return Row(name, raw["patient"], int(readers), (slices, pixels, pixels), *ratings)


def _number(line: int, raw: dict[str, str], column: str) -> float | None:
    text = raw.get(column)
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{TABLE} line {line}: {column}={text!r} is no number") from error
