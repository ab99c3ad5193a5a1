"""What all objects of a report share: the patient's and the study's facts, and who made them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom.config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from kits.medical.results.study import Study
from kits.medical.results.uids import derived_uid, moment, object_uid

MANUFACTURER = "deepkits"
PRODUCT = "deepkits medical: lung nodules"
IMPLEMENTATION = derived_uid("deepkits", "medical", "results")
UNVERIFIED = "UNVERIFIED - RESEARCH USE"
# Between a header's position and the grid's: half of what would be another slice, and more than
# reading a scan forgives.
LARGEST_OFFSET = 0.2, 0.05  # mm, and of the distance between slices

# What the archive knows the study by: taken as it is, even if it breaks the standard.
IDENTIFYING = (
    "PatientName", "PatientID", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
# Must be there, if need be empty ...
REQUIRED = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
# ... and where the source says it.
COPIED = (
    "TimezoneOffsetFromUTC",
    "IssuerOfPatientID", "TypeOfPatientID", "QualityControlSubject", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified", "PatientAge", "PatientSize", "PatientWeight",
    "StudyDescription", "IssuerOfAccessionNumberSequence", "ProcedureCodeSequence",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
)  # fmt: skip
SEXES = ("M", "F", "O")

ASCII = str.maketrans({"≥": ">=", "≤": "<=", "×": "x", "±": "+/-", "–": "-", "—": "-", "−": "-",
                       "³": "3", "²": "2", "µ": "u", "→": "->", "·": "-", "’": "'", "≈": "~",
                       "∞": "inf", "°": " deg"})  # fmt: skip


def new_object(
    study: Study,
    datasets: Sequence[Dataset],
    kind: str,
    *,
    clock: datetime | None = None,
) -> Dataset:
    """The first object of a series in the scan's study, with everything but its own content.

    Args:
        study: what is reported.
        datasets: headers of the scan, in the order of the volume.
        kind: "seg", "sr" or "image"; makes the series and its UID.
        clock: when it was made; None: when the scan was, so that each run writes the same bytes.
    Raises:
        ValueError: the headers are not those of the study's grid.
    """
    check_headers(study, datasets)
    source = datasets[0]
    modality, sop_class, offset, title = KINDS[kind]
    made = Dataset()
    _copy_facts(source, made)
    if study.is_phantom:
        made.QualityControlSubject = "YES"
        title = f"{title}, PHANTOM"
    made.StudyInstanceUID = source.StudyInstanceUID
    made.SeriesInstanceUID = object_uid(study, kind, "series")
    made.SOPClassUID = sop_class
    made.Modality = modality
    made.SeriesNumber = int(source.get("SeriesNumber") or 0) % 100_000 * 100 + offset
    made.SeriesDescription = f"{title}, unverified"
    made.Manufacturer = MANUFACTURER
    made.ManufacturerModelName = PRODUCT
    made.DeviceSerialNumber = study.model.sha256[:64] or "unknown"
    made.SoftwareVersions = study.model.version[:64] or "unknown"
    date, time = moment(datasets, clock)
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(made, f"{name}Date", date)
        setattr(made, f"{name}Time", time)
    made.InstanceCreatorUID = IMPLEMENTATION
    return numbered(made, study, kind, 1)


def numbered(first: Dataset, study: Study, kind: str, number: int) -> Dataset:
    """A further object of a series, from one that has no content yet."""
    made = deepcopy(first)
    made.SOPInstanceUID = object_uid(study, kind, "instance", str(number))
    made.InstanceNumber = number
    made.file_meta = _file_meta(made)
    return made


KINDS = {
    # kind: modality, SOP class, the last digits of the series number, title
    "seg": ("SEG", "1.2.840.10008.5.1.4.1.1.66.4", 91, "Lung nodules: segments"),
    "sr": ("SR", "1.2.840.10008.5.1.4.1.1.88.34", 92, "Lung nodules: measurements"),
    "image": ("OT", "1.2.840.10008.5.1.4.1.1.7", 93, "Lung nodules: key images"),
}


def _copy_facts(source: Dataset, made: Dataset) -> None:
    """Patient and study as the source has them; of what breaks the standard, the names alone."""
    characters = source.get("SpecificCharacterSet")
    if characters is not None:
        sets = characters if isinstance(characters, MultiValue) else [characters]
        is_known = all(not one or one in python_encoding for one in sets)
        made.SpecificCharacterSet = characters if is_known else "ISO_IR 192"
        if characters == "GBK":
            made.SpecificCharacterSet = "GB18030"  # holds it, and is known to older readers
    for keyword in (*IDENTIFYING, *REQUIRED, *COPIED):
        tag = tag_for_keyword(keyword)
        assert tag is not None
        try:
            element = source.get(tag)
        except (ValueError, TypeError, OverflowError, NotImplementedError):
            element = None  # such as a weight of "70,5"
        value = None if element is None else element.value
        form = dictionary_VR(tag)
        if keyword not in IDENTIFYING:
            value = _tidy(keyword, form, value)
        if value is None and keyword in COPIED:
            continue
        value = "" if value is None else copy(value)
        made.add(DataElement(tag, form, value, validation_mode=pydicom.config.IGNORE))


def _tidy(keyword: str, form: str, value: object) -> object:
    """A value that the standard allows; None where there is none."""
    if value is None or form == "SQ":
        return value
    if form in ("DA", "TM"):
        # 1999.01.31 and 12:30:00 of the oldest files
        value = str(value).translate(str.maketrans("", "", ".:" if form == "DA" else ":"))
    if keyword == "PatientSex" and value not in SEXES:
        return None
    parts = value if isinstance(value, MultiValue) else [value]
    try:
        for part in parts:
            validate_value(form, str(part), pydicom.config.RAISE)
            if form == "DA" and part:
                datetime.strptime(str(part), "%Y%m%d")
    except ValueError:
        return None
    return value


def _file_meta(made: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "DEEPKITS_MEDICAL"
    return meta


def check_headers(study: Study, datasets: Sequence[Dataset]) -> None:
    """Refuse headers that are not those of the grid: a mask would lie in another place.

    Raises:
        ValueError: their number, series, size or position differs.
    """
    grid = study.grid
    if len(datasets) != grid.shape[0]:
        raise ValueError(
            f"{len(datasets)} headers for {grid.shape[0]} slices; "
            "give those of the volume, in its order"
        )
    series = {str(dataset.SeriesInstanceUID) for dataset in datasets}
    if series != {study.source.series_uid}:
        raise ValueError(
            f"headers are of the series {sorted(series)}, the study of {study.source.series_uid}"
        )
    if any((dataset.Rows, dataset.Columns) != grid.shape[1:] for dataset in datasets):
        raise ValueError(f"not every header has the rows and columns of the grid, {grid.shape[1:]}")
    corners = np.zeros((len(datasets), 3))
    corners[:, 0] = np.arange(len(datasets))
    written = np.array([dataset.ImagePositionPatient for dataset in datasets], np.float64)
    offset = np.abs(written - grid.to_patient(corners)).max()
    axes = np.array(datasets[0].ImageOrientationPatient, np.float64).reshape(2, 3)
    allowed = LARGEST_OFFSET[0] + LARGEST_OFFSET[1] * grid.spacing_mm[0]
    if offset > allowed or not np.allclose(axes, grid.axes[[2, 1]], atol=3e-3):
        raise ValueError(
            f"headers lie up to {offset:.3f} mm from the grid, or turned against it; "
            "give those of the volume, in its order"
        )


def copy_compression(source: Dataset, made: Dataset) -> None:
    """Say of an image whether what it was made from had been compressed with loss."""
    made.LossyImageCompression = source.get("LossyImageCompression") or "00"
    if made.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if source.get(keyword):
                setattr(made, keyword, source.get(keyword))


def plain(text: str, made: Dataset) -> str:
    """Text as the object's character set can hold it; ours is English, signs become letters."""
    if "ISO_IR 192" in str(made.get("SpecificCharacterSet", "")):
        return text
    return text.translate(ASCII).encode("ascii", "replace").decode("ascii")


def save(made: Dataset, path: Path) -> Path:
    """Write an object as a DICOM file."""
    made.save_as(path, enforce_file_format=True)
    return path
