"""Published image sets, packed or not: their files, and their table boxes.csv."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kits.defect.data.config import FolderData
from kits.defect.data.validate import Problems, box_problem, inside

TABLE = "boxes.csv"
COLUMNS = ("image", "class", "xmin", "ymin", "xmax", "ymax")


class PackedFiles:
    """The files of a folder or of a zip file, in memory: a few dozen MB, and safe to fork.

    Raises:
        ValueError: there is none, or it is not the file that was published under its name.
    """

    def __init__(self, cfg: FolderData, published: Mapping[str, str]) -> None:
        """Read everything.

        Args:
            cfg: names the folder or the file.
            published: name of a zip file -> its sha256.
        """
        path = Path(cfg.path).expanduser()
        if path.is_dir() and not (path / TABLE).is_file():
            packed = sorted(path.glob("*.zip"))
            if len(packed) != 1:
                raise ValueError(
                    f"data.path={cfg.path!r} holds no {TABLE} and {len(packed)} zip files; "
                    "set data.path to the zip file, or to the folder it was unpacked to"
                )
            path = packed[0]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            self.contents = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
        elif path.is_file():
            self.contents = _unpacked(path, published)
        else:
            raise ValueError(f"data.path={cfg.path!r} does not exist; set data.path")
        if TABLE not in self.contents:
            raise ValueError(f"{path} holds no {TABLE}; choose another data.path")
        digest = hashlib.sha256()
        for name in sorted(self.contents):
            digest.update(name.encode() + hashlib.sha256(self.contents[name]).digest())
        self.fingerprint = digest.hexdigest()

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted."""
        return sorted(
            name.removeprefix(f"{folder}/")
            for name in self.contents
            if name.startswith(f"{folder}/")
        )

    def boxes(
        self,
        class_names: Sequence[str],
        sizes: Mapping[str, tuple[int, int]],
        first_pixel: int,
        problems: Problems,
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The table by image.

        Args:
            class_names: the legal classes, in order.
            sizes: width and height of every image.
            first_pixel: 1 where pixels count from 1 and the last one is included, else 0.
            problems: takes what is wrong.
        Returns:
            image -> (N, 4) float32 boxes, (N,) int64 classes; none is left out.
        """
        reader = csv.DictReader(io.StringIO(self.contents[TABLE].decode("utf-8-sig")))
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{TABLE} has no column {', '.join(missing)}; it needs {COLUMNS}")
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in sizes}
        for line, row in enumerate(reader, start=2):
            name, where = row["image"], f"{TABLE} line {line}"
            if name not in sizes:
                problems.add(where, f"image={name!r} is not there")
                continue
            if row["class"] not in class_names:
                legal = ", ".join(class_names)
                problems.add(where, f"class={row['class']!r} is not one of {legal}", name)
                continue
            x1, y1, x2, y2 = (_number(row[column]) for column in COLUMNS[2:])
            box = (x1 - first_pixel, y1 - first_pixel, x2, y2)
            if what := box_problem(box, *sizes[name]):
                problems.add(where, what, name)
                continue
            found[name].append((class_names.index(row["class"]), *inside(box, *sizes[name])))
        return {name: _arrays(rows) for name, rows in found.items()}


def _arrays(rows: list[tuple[float, ...]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, np.float64).reshape(-1, 5)
    return table[:, 1:].astype(np.float32), table[:, 0].astype(np.int64)


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _unpacked(path: Path, published: Mapping[str, str]) -> dict[str, bytes]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != published.get(path.name, digest):
        raise ValueError(
            f"{path} has sha256={digest}, published was {published[path.name]}; copy it again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            tables = [name for name in names if Path(name).name == TABLE]
            root = tables[0].removesuffix(TABLE) if len(tables) == 1 else ""
            return {name.removeprefix(root): archive.read(name) for name in names}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no zip file, {error}; copy it again") from error
