"""De-identification of what is written for sharing: DICOM PS3.15 Annex E with options.

The Basic Application Confidentiality Profile, with descriptors and structured content cleaned and
dates moved: all of a patient's by the same time, so that a doubling time stays what it was. UIDs
and names follow from a secret key: the same key maps a patient, a study and its report alike, also
years apart, and nobody can map them back or forth without it.

Pixels are not searched for text. Objects that may show some are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta

import pydicom.config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset

from kits.medical.results import codes
from kits.medical.results.basic_profile import CLEANED, DUMMIES, EMPTIED, KEPT, WORDS
from kits.medical.results.codes import Code
from kits.medical.results.headers import IMPLEMENTATION, MANUFACTURER
from kits.medical.results.pseudonyms import Pseudonyms, make_key, read_key
from kits.medical.results.study import Source

__all__ = ["deidentify", "deidentify_source", "make_key", "read_key"]

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SHARED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image",
    SECONDARY_CAPTURE: "Secondary Capture Image",
    SEGMENTATION: "Segmentation",
    "1.2.840.10008.5.1.4.1.1.88.22": "Enhanced SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "Comprehensive SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive 3D SR",
}
# Moved together with the time beside them; other dates and times are removed.
DATED = ("InstanceCreation", "Study", "Series", "Acquisition", "Content")
DATE_PAIRS = {
    **{f"{name}Date": f"{name}Time" for name in DATED},
    "DateOfSecondaryCapture": "TimeOfSecondaryCapture",
}
MOMENTS = ("AcquisitionDateTime",)

# Texts of a report that no person wrote; every other text, name and date in one is removed.
TEXTS = frozenset(
    (code.value, code.scheme)
    for code in (
        codes.ALGORITHM_NAME, codes.ALGORITHM_VERSION, codes.ALGORITHM_PARAMETERS,
        codes.DEVICE_NAME, codes.DEVICE_MANUFACTURER, codes.DEVICE_MODEL,
        codes.LOCATION, codes.LIMITS,
    )
)  # fmt: skip
# Coding schemes whose meanings are published, the project's own among them.
SCHEMES = frozenset(
    {
        "DCM", "SCT", "SRT", "UCUM", "LN", "NCIt", "UMLS", "FMA", "RADLEX", "RadLex", "IBSI",
        "RFC5646", "ISO3166_1", "ISO639_1", codes.OWN_SCHEME,
    }
)  # fmt: skip
OWN_ID = re.compile(r"nodule-\d{1,3}")  # what the report calls a nodule
REMOVED_ITEMS = frozenset({"PNAME", "DATE", "TIME", "DATETIME", "WAVEFORM"})

BASIC = Code("113100", "DCM", "Basic Application Confidentiality Profile")
PIXELS = Code("113101", "DCM", "Clean Pixel Data Option")
STRUCTURED = Code("113104", "DCM", "Clean Structured Content Option")
DESCRIPTORS = Code("113105", "DCM", "Clean Descriptors Option")
MOVED_DATES = Code(
    "113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option"
)


def deidentify(dataset: Dataset, key: bytes) -> Dataset:
    """An object that may be shared; the one given stays as it is.

    Args:
        dataset: CT, Segmentation, structured report or Secondary Capture.
        key: the secret, from `read_key`.
    Raises:
        ValueError: the object is of another class, or its pixels may show who it is.
    """
    _refuse(dataset)
    names = Pseudonyms.of(
        key,
        str(dataset.get("PatientID") or ""),
        str(dataset.get("IssuerOfPatientID") or ""),
        str(dataset.StudyInstanceUID),
    )
    is_ours = str(dataset.get("Manufacturer", "")) == MANUFACTURER
    shared = _clean(dataset, names, is_ours=is_ours)
    shared.PatientName, shared.PatientID = names.name, names.id
    if shared.get("VerificationFlag") == "VERIFIED":
        # Who verified it is gone, and with that the verification.
        shared.VerificationFlag = "UNVERIFIED"
    _declare(shared, dataset)
    shared.file_meta = _file_meta(dataset, shared)
    return shared


def deidentify_source(source: Source, key: bytes) -> Source:
    """The scan's facts for a page (a PDF) that is to be shared."""
    names = Pseudonyms.of(key, source.patient_id, "", source.study_uid)
    date, time = _moved(source.study_date, source.study_time, names.shift)
    return replace(
        source,
        patient_name=names.name,
        patient_id=names.id,
        birth_date="",
        sex="",
        age="",
        study_uid=names.uid(source.study_uid),
        study_date=date,
        study_time=time,
        study_description=_words(source.study_description),
        accession_number="",
        institution="",
        series_uid=names.uid(source.series_uid),
        series_description=_words(source.series_description),
        series_reasons=(),
    )


def _refuse(dataset: Dataset) -> None:
    kind = str(dataset.get("SOPClassUID", ""))
    if kind not in SHARED_CLASSES:
        raise ValueError(
            f"SOPClassUID={kind!r} is not one of {', '.join(SHARED_CLASSES.values())}; "
            "share none of other kinds"
        )
    burned_in = dataset.get("BurnedInAnnotation")
    if burned_in == "YES" or (kind == SECONDARY_CAPTURE and burned_in != "NO"):
        raise ValueError(
            f"BurnedInAnnotation={burned_in}: the pixels may show who the patient is; "
            "clean them and say NO, or share the object not at all"
        )


def _clean(dataset: Dataset, names: Pseudonyms, *, is_ours: bool) -> Dataset:
    shared = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 (a Dataset's iterator converts, and may fail)
        if tag.is_private:
            continue
        try:
            element = dataset[tag]
        except (ValueError, TypeError, OverflowError, NotImplementedError):
            continue  # what cannot be read cannot be cleaned
        kept = _element(element, names, is_ours=is_ours)
        if kept is not None:
            shared.add(kept)
    if "CodeMeaning" in shared and shared.get("CodingSchemeDesignator") not in SCHEMES:
        # A hospital's own codes can say anything.
        shared.CodeMeaning = "cleaned"
    for date_name, time_name in DATE_PAIRS.items():
        if date_name in dataset:
            date, time = _moved(
                str(dataset.get(date_name) or ""), str(dataset.get(time_name) or ""), names.shift
            )
            setattr(shared, date_name, date)
            if time_name in dataset:
                setattr(shared, time_name, time)
    for name in MOMENTS:
        if dataset.get(name):
            moment = str(dataset.get(name))
            setattr(shared, name, "".join(_moved(moment[:8], moment[8:], names.shift)))
    return shared


def _element(element: DataElement, names: Pseudonyms, *, is_ours: bool) -> DataElement | None:
    """What stays of an element; None: nothing."""
    keyword, value = element.keyword, element.value
    if not keyword:
        return None
    if keyword == "ContentSequence":
        value = [item for item in value if _may_stay(item)]
    if keyword in EMPTIED:
        value = [] if element.VR == "SQ" else ""
    elif keyword in DUMMIES:
        value = DUMMIES[keyword]
    elif keyword in CLEANED:
        value = _words(str(value)) or CLEANED[keyword]
        if not value:
            return None
    elif element.VR == "UI":
        value = [names.uid(str(uid)) for uid in _values(value)]
    elif keyword == "TextValue" or (keyword == "AlgorithmParameters" and is_ours):
        pass  # of items that may stay, and of our own: no person wrote them
    elif keyword not in KEPT:
        return None
    if element.VR == "SQ" and value:
        value = [_clean(item, names, is_ours=is_ours) for item in value]
    elif element.VR == "SQ" and element.value and keyword not in EMPTIED:
        return None  # nothing of it may stay
    return DataElement(element.tag, element.VR, copy(value), validation_mode=pydicom.config.IGNORE)


def _values(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]


def _may_stay(item: Dataset) -> bool:
    """Whether an item of a report's content can hold nothing that a person wrote."""
    kind = item.get("ValueType")
    if kind == "TEXT":
        name = item.ConceptNameCodeSequence[0] if item.get("ConceptNameCodeSequence") else Dataset()
        named = name.get("CodeValue"), name.get("CodingSchemeDesignator")
        is_ours = OWN_ID.fullmatch(str(item.get("TextValue"))) is not None
        return named in TEXTS or (named == codes.TRACKING_ID[:2] and is_ours)
    return kind not in REMOVED_ITEMS


def _words(text: str) -> str:
    """The words of a text that say how a scan was made, and short numbers among them."""
    if OWN_ID.fullmatch(text):
        return text
    found = re.findall(r"[^\W_]+(?:\.\d+[a-z]*)?", text)
    return " ".join(
        word
        for word in found
        if word.lower() in WORDS or re.fullmatch(r"\d{1,2}(\.\d{1,3})?(mm)?", word.lower())
    )


def _moved(date: str, time: str, shift: timedelta) -> tuple[str, str]:
    """A date and its time, moved; what is no date becomes empty."""
    digits = re.sub(r"\D", "", date)[:8]
    clock = re.match(r"(\d{2})?:?(\d{2})?:?(\d{2})?(\.\d{1,6})?", time)
    parts = clock.groups() if clock else (None,) * 4
    try:
        moment = datetime.strptime(digits, "%Y%m%d").replace(
            hour=int(parts[0] or 0), minute=int(parts[1] or 0), second=int(parts[2] or 0)
        )
    except ValueError:
        return "", ""
    moved = moment + shift
    fraction = parts[3] or ""
    return moved.strftime("%Y%m%d"), moved.strftime("%H%M%S") + fraction if time else ""


def _declare(shared: Dataset, dataset: Dataset) -> None:
    """Say what was done, and what had been done before."""
    done = [BASIC, DESCRIPTORS, MOVED_DATES]
    if "ContentSequence" in dataset:
        done.insert(1, STRUCTURED)
    if dataset.get("BurnedInAnnotation") == "NO" or dataset.SOPClassUID == SEGMENTATION:
        done.insert(1, PIXELS)
    shared.PatientIdentityRemoved = "YES"
    shared.LongitudinalTemporalInformationModified = "MODIFIED"
    shared.DeidentificationMethod = [f"DICOM PS3.15 E, {code.value}" for code in done]
    earlier = dataset.get("DeidentificationMethodCodeSequence") or []
    new = {code.value for code in done}
    shared.DeidentificationMethodCodeSequence = [
        *(code.item() for code in done),
        *(
            Code(str(item.CodeValue), "DCM", str(item.CodeMeaning)).item()
            for item in earlier
            if item.get("CodingSchemeDesignator") == "DCM" and item.get("CodeValue") not in new
        ),
    ]


def _file_meta(dataset: Dataset, shared: Dataset) -> FileMetaDataset:
    """The file's own header, made anew: it can name the station that sent it."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = shared.SOPClassUID
    meta.MediaStorageSOPInstanceUID = shared.SOPInstanceUID
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "DEEPKITS_MEDICAL"
    return meta
