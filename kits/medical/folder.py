"""A folder of anything: which files are DICOM images, and which should have been.

Links are not followed, pipes and devices not opened; nothing outside of the folder is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.config import disable_value_validation

from kits.medical.headers import DICOMDIR, READ_ERRORS, Header, NotDicom, read_header
from kits.medical.refusals import Refusal

MOST_FILES = 50_000
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dc3")


@dataclass
class Folder:
    """What lies in a folder."""

    path: Path
    images: list[Header] = field(default_factory=list)  # DICOM files with pixels
    skipped: list[Path] = field(default_factory=list)  # no DICOM files, or links
    listed: dict[str, str] = field(default_factory=dict)  # DICOMDIR: SOP UID -> series UID

    def check_complete(self, headers: list[Header]) -> None:
        """Nothing that was skipped looks like one more slice of these, and none is missing.

        Raises:
            Refusal: a slice may be lost.
        """
        like = {_pattern(header.path) for header in headers}
        for path in self.skipped:
            if _pattern(path) in like:
                raise Refusal(
                    "skipped_file",
                    f"{path.relative_to(self.path)} is named like a slice, but is a link or no "
                    "DICOM file, so a slice may be lost; copy the scan again, or take it away",
                )
        there = {header.text("SOPInstanceUID", "") for header in headers}
        series = headers[0].text("SeriesInstanceUID", "")
        lost = [uid for uid, of in self.listed.items() if of == series and uid not in there]
        if lost:
            raise Refusal(
                "missing_file",
                f"the DICOMDIR lists {len(lost)} slice(s) of the series that are not in the "
                f"folder (first: {lost[0]}); copy the whole medium",
            )


def read_folder(path: Path, progress: Callable[[int, int], None] | None = None) -> Folder:
    """Read the headers of all DICOM files below a folder.

    Raises:
        Refusal: there are none, or one cannot be read.
    """
    if not path.is_dir():
        raise Refusal("no_folder", f"{path} is not a folder; give the folder with the scan's files")
    files, links = _files(path)
    folder = Folder(path, skipped=list(links))
    with disable_value_validation():
        for number, file in enumerate(files, 1):
            _take(folder, file)
            if progress is not None:
                progress(number, len(files))
    if not folder.images:
        link = f" ({len(links)} links, which are not followed)" if links else ""
        raise Refusal(
            "no_dicom",
            f"{path} holds {len(files)} files, none is a DICOM image{link}; "
            "give the folder with the scan's files",
        )
    return folder


def _take(folder: Folder, file: Path) -> None:
    try:
        header = read_header(file)
    except NotDicom:
        if file.suffix.lower() in DICOM_SUFFIXES:
            raise Refusal(
                "unreadable_file",
                f"{file.relative_to(folder.path)} is no DICOM file though named as one, so a slice "
                "may be lost; copy the scan again",
            ) from None
        folder.skipped.append(file)
        return
    if header.dataset.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR:
        folder.listed.update(_listed(header))
    elif header.pixels_at is not None or header.text("Modality", "") == "CT":
        folder.images.append(header)  # without pixels it is refused with its series
    elif not header.text("SOPClassUID", "") or not header.text("Modality", ""):
        raise Refusal(
            "unreadable_file",
            f"{file.relative_to(folder.path)} ends before it says what it is, so a slice may be "
            "lost; copy the scan again",
        )


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """All regular files below a folder in a fixed order, and all links."""
    files: list[Path] = []
    links: list[Path] = []
    for where, folders, names in os.walk(path):
        folders.sort()
        here = Path(where)
        links += [here / name for name in folders if (here / name).is_symlink()]
        for name in sorted(names):
            (links if (here / name).is_symlink() else files).append(here / name)
        if len(files) > MOST_FILES:
            raise Refusal(
                "too_many_files",
                f"{path} holds more than {MOST_FILES:,} files; give the folder of one patient",
            )
    return files, links


def _listed(directory: Header) -> dict[str, str]:
    """SOP UID -> series UID of the images in a DICOMDIR, whose records follow their parents."""
    found, series = {}, ""
    try:
        for record in directory.dataset.DirectoryRecordSequence:
            kind = record.DirectoryRecordType
            if kind == "SERIES":
                series = str(record.SeriesInstanceUID)
            elif kind == "IMAGE":
                found[str(record.ReferencedSOPInstanceUIDInFile)] = series
    except READ_ERRORS as error:
        raise Refusal(
            "unreadable_file",
            f"{directory.path.name} cannot be read ({type(error).__name__}: {error}); "
            "take it out of the folder",
        ) from error
    return found


def _pattern(path: Path) -> tuple[Path, str]:
    """Names that differ in numbers alone have one pattern."""
    return path.parent, re.sub(r"\d+", "#", path.name)
