"""A folder of DICOM files becomes a CT in Hounsfield units, or is refused with a reason.

    scan = read_scan(Path("disc"))
    scan.volume.voxels          (D, H, W) int16 HU, outside of the reconstruction -1024
    scan.volume.grid            where they lie; sorted by position, never by instance number
    scan.choice.reasons         why this series

Geometry and values are taken from the files by the code beside this file and by no other library.
What is not certain is a `Refusal` with a `code` (`kits.medical.refusals.CODES`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydicom.dataset import FileDataset

from kits.medical.folder import read_folder
from kits.medical.geometry import Volume
from kits.medical.headers import READ_ERRORS, Header
from kits.medical.pixels import Tally, read_volume
from kits.medical.plausible import check_densities, check_neighbours
from kits.medical.refusals import Refusal
from kits.medical.results.study import Source
from kits.medical.series import Choice, check_one_patient, choose, list_series

__all__ = ["Refusal", "Scan", "interval_days", "read_scan"]

DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")  # the first that both scans have
SHORT_MM = 150.0  # less than most lungs are long
Progress = Callable[[str, float], None]  # step ("headers", "pixels"), share of it that is done


@dataclass(frozen=True)
class Scan:
    """A chest CT as it was read."""

    volume: Volume
    datasets: tuple[FileDataset, ...]  # headers without pixels: number d is slice d of the volume
    files: tuple[Path, ...]  # in the same order
    choice: Choice
    source: Source  # patient, study and series in the words of the headers
    slice_thickness_mm: float
    kernel: str
    contrast: str  # the agent's name, or "" where the headers name none
    notes: tuple[str, ...]  # what to know about the scan, beside the choice's reasons

    @property
    def header(self) -> Header:
        """Of the first slice."""
        return self.choice.series.slices[0].header


def read_scan(
    folder: str | Path,
    series: str | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Read one chest CT.

    Args:
        folder: DICOM files of one patient, in any order, nested or not, other files between.
        series: UID of the series to take; None takes the best by the rule in `series.py`.
        threads: that read pixels; None takes one, and every core where they are compressed.
        progress: is told the step ("headers", "pixels") and the share of it that is done.

    Raises:
        Refusal: with a code, what was seen, the rule, and what to do.
    """
    path = Path(folder)
    found = read_folder(path, _step(progress, "headers"))
    check_one_patient(found.images)
    choice = choose(list_series(found.images), series)
    chosen = choice.series
    found.check_complete(list(chosen.headers))
    voxels, tally = read_volume(chosen.slices, threads, _step(progress, "pixels"))
    check_densities(voxels)
    check_neighbours(voxels, [(one.slope, one.intercept) for one in chosen.slices])
    assert chosen.grid is not None
    first = chosen.slices[0]
    return Scan(
        volume=Volume(chosen.grid, voxels),
        datasets=tuple(one.header.dataset for one in chosen.slices),
        files=tuple(one.header.path for one in chosen.slices),
        choice=choice,
        source=_source(choice),
        slice_thickness_mm=first.thickness_mm,
        kernel=first.kernel,
        contrast=first.header.text("ContrastBolusAgent", ""),
        notes=tuple(_notes(choice, tally, len(found.skipped))),
    )


def interval_days(prior: Scan, scan: Scan) -> int:
    """Days from an earlier scan of the same patient to this one.

    Dates that de-identification has shifted are used if it has shifted both scans' dates, which
    the profile demands to be by the same time for one patient.

    Raises:
        Refusal: other patient, no common date, only one of both shifted, or not earlier.
    """
    if prior.source.patient_id != scan.source.patient_id or _births_differ(prior, scan):
        raise Refusal(
            "different_patients",
            "PatientID or PatientBirthDate of the earlier scan differ; give a scan of the same "
            "patient",
        )
    shifts = [
        one.header.text("LongitudinalTemporalInformationModified", "") for one in (prior, scan)
    ]
    if "REMOVED" in shifts or ("MODIFIED" in shifts and shifts[0] != shifts[1]):
        raise Refusal(
            "shifted_dates",
            f"LongitudinalTemporalInformationModified is {shifts[0] or 'absent'} for the earlier "
            f"scan and {shifts[1] or 'absent'} for this one, so the interval is unknown; "
            "de-identify both in one way",
        )
    for keyword in DATES:
        texts = [one.header.text(keyword, "") for one in (prior, scan)]
        if all(texts):
            days = (_date(texts[1], keyword) - _date(texts[0], keyword)).days
            if days <= 0:
                raise Refusal(
                    "prior_not_earlier",
                    f"{keyword} is {texts[0]} for the earlier scan and {texts[1]} for this one; "
                    "exchange them",
                )
            return days
    raise Refusal(
        "missing_date", f"the scans have none of {', '.join(DATES)} in common; export them again"
    )


def _births_differ(prior: Scan, scan: Scan) -> bool:
    births = {one.source.birth_date for one in (prior, scan)} - {""}
    return len(births) > 1


def _date(text: str, keyword: str) -> date:
    digits = text.replace(".", "")  # 1999.01.31 of the oldest files
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        raise Refusal(
            "missing_date", f"{keyword}={text!r} is no date (YYYYMMDD); export the scan again"
        ) from None


def _step(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done / total)


def _notes(choice: Choice, tally: Tally, num_skipped: int) -> list[str]:
    """What a reader of the report should know, none of which is wrong."""
    chosen, notes = choice.series, []
    assert chosen.grid is not None
    header = chosen.slices[0].header
    if chosen.num_copies:
        notes.append(f"{chosen.num_copies} files were copies of others and were left out")
    if tally.num_padded:
        notes.append(f"{tally.num_padded} padded voxels were set to -1024 HU")
    if tally.num_below_air:
        notes.append(f"{tally.num_below_air} voxels below -1024 HU were set to it")
    if num_skipped:
        notes.append(f"{num_skipped} files that are not DICOM, or links, were left out")
    if len({(one.slope, one.intercept) for one in chosen.slices}) > 1:
        notes.append("each slice was rescaled with its own slope and intercept")
    if agent := header.text("ContrastBolusAgent", ""):
        notes.append(f"contrast agent: {agent}")
    extent = chosen.grid.shape[0] * chosen.grid.spacing_mm[0]
    if extent < SHORT_MM:
        notes.append(f"the scan is {extent:.0f} mm long: only a part of the lungs")
    if not header.text("BodyPartExamined", ""):
        notes.append("the headers do not name the body part; lung was found by its density")
    return notes


def _source(choice: Choice) -> Source:
    """The headers' words for people, decoded as the files say."""
    first = choice.series.slices[0]
    dataset, header = first.header.dataset, first.header

    def said(keyword: str) -> str:
        # Text of people needs the file's character set, which pydicom applies.
        try:
            value = dataset.get(keyword)
        except READ_ERRORS as error:
            raise Refusal(
                "bad_tag",
                f"{header.path.name}: {keyword} cannot be read ({error}); copy the scan again",
            ) from error
        return "" if value is None else str(value).strip()

    return Source(
        patient_name=said("PatientName"),
        patient_id=said("PatientID"),
        birth_date=header.text("PatientBirthDate", ""),
        sex=said("PatientSex"),
        age=said("PatientAge"),
        study_uid=header.text("StudyInstanceUID"),
        study_date=header.text("StudyDate", ""),
        study_time=header.text("StudyTime", ""),
        study_description=said("StudyDescription"),
        accession_number=said("AccessionNumber"),
        institution=said("InstitutionName"),
        series_uid=choice.series.uid,
        series_number=header.text("SeriesNumber", ""),
        series_description=said("SeriesDescription"),
        series_reasons=choice.reasons,
        manufacturer=said("Manufacturer"),
        scanner=said("ManufacturerModelName"),
        kernel=first.kernel,
        tube_kv=first.tube_kv,
        slice_thickness_mm=first.thickness_mm,
    )
