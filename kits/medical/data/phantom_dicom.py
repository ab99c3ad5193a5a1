"""A phantom as a DICOM series: `python -m kits.medical.data.phantom_dicom <folder> [seed=1]`.

Every header says that it is a phantom. The same settings write the same bytes.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from core.kit import Split
from kits.medical.data.case import Case
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import Phantom, make_phantom
from kits.medical.results.uids import derived_uid

STATEMENT = "PHANTOM: simulated CT, not a patient; not for clinical use"
INTERCEPT_HU = -1024


@dataclass
class SeriesSettings:
    """What the command line may say."""

    seed: int = 0
    # Which simulated patient of the test split.
    number: int = 0
    # Slices, rows, columns.
    shape: str = "300,512,512"
    slice_mm: float = 1.0
    pixel_mm: float = 0.7
    # Date of the study.
    date: str = "20000101"
    # Not 0: a second scan of the same patient, every other nodule with so many times its volume.
    growth: float = 0.0


def write_series(phantom: Phantom, folder: Path, date: str = "20000101") -> list[Path]:
    """Write one file per slice.

    Args:
        phantom: what is written.
        folder: made if there is none; it must hold nothing yet.
        date: of the study, as DICOM writes dates.
    Returns:
        the files, from the feet to the head.
    Raises:
        ValueError: the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"folder={str(folder)!r} is not empty; name another one")
    series = _series_header(phantom, date)
    digits = len(str(len(phantom.case.volume.voxels)))
    paths = []
    for number, pixels in enumerate(phantom.case.volume.voxels):
        slice_ = _slice(series, phantom.case, number, pixels)
        path = folder / f"slice-{number + 1:0{digits}d}.dcm"
        slice_.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _series_header(phantom: Phantom, date: str) -> Dataset:
    case, look = phantom.case, phantom.look
    pixels = hashlib.sha256(case.volume.voxels.tobytes()).hexdigest()
    key = (case.name, str(look), date, pixels)
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "PHANTOM"]
    header.PatientName = f"PHANTOM^{case.name}"
    header.PatientID = case.name
    header.PatientBirthDate = header.PatientSex = ""
    header.QualityControlSubject = header.QualityControlImage = "YES"
    header.PatientComments = header.ImageComments = STATEMENT
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = date
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = "120000"
    header.AccessionNumber = header.ReferringPhysicianName = ""
    header.StudyID = "1"
    header.StudyDescription = "PHANTOM chest CT"
    header.SeriesDescription = f"PHANTOM {look.kernel} {look.thickness_mm:g} mm"
    header.Modality = "CT"
    header.Manufacturer = "deepkits phantom simulator"
    header.ManufacturerModelName = "PHANTOM"
    header.BodyPartExamined = "CHEST"
    header.PatientPosition = "HFS"
    header.PositionReferenceIndicator = ""
    header.StudyInstanceUID = derived_uid("phantom study", *key)
    header.SeriesInstanceUID = derived_uid("phantom series", *key)
    header.FrameOfReferenceUID = derived_uid("phantom frame of reference", *key)
    header.SeriesNumber = header.AcquisitionNumber = 1
    header.KVP = "120"
    header.SliceThickness = _decimal(look.thickness_mm)
    header.ConvolutionKernel = f"PHANTOM-{look.kernel.upper()}"
    _pixel_header(header, case)
    return header


def _pixel_header(header: Dataset, case: Case) -> None:
    grid = case.volume.grid
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = grid.shape[1:]
    header.PixelSpacing = [_decimal(step) for step in grid.spacing_mm[1:]]
    # The direction in which columns grow, then rows.
    header.ImageOrientationPatient = [_decimal(value) for value in grid.axes[[2, 1]].ravel()]
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    header.RescaleIntercept, header.RescaleSlope = str(INTERCEPT_HU), "1"
    header.RescaleType = "HU"
    header.WindowCenter, header.WindowWidth = "-600", "1500"


def _slice(series: Dataset, case: Case, number: int, pixels: np.ndarray) -> Dataset:
    uid = derived_uid("phantom slice", series.SeriesInstanceUID, str(number))
    one = Dataset()
    one.update(series)
    one.SOPInstanceUID = uid
    one.InstanceNumber = number + 1
    corner = case.volume.grid.to_patient(np.array([number, 0, 0]))
    one.ImagePositionPatient = [_decimal(value) for value in corner]
    one.SliceLocation = _decimal(corner[2])
    one.PixelData = (pixels - np.int16(INTERCEPT_HU)).astype("<u2").tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = uid
    return one


def _decimal(value: float) -> str:
    # At most 16 characters may be used; positions need no more than a nanometre.
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


def parse(words: list[str]) -> tuple[Path, SeriesSettings]:
    """A folder and settings from the command line.

    Raises:
        ValueError: no folder, an unknown key, or a value of another type.
    """
    names = {field.name: type(field.default) for field in fields(SeriesSettings)}
    usage = f"python -m kits.medical.data.phantom_dicom <folder> [{'=.. '.join(names)}=..]"
    if not words or "=" in words[0]:
        raise ValueError(f"folder is missing; {usage}")
    values = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key not in names:
            raise ValueError(f"{word!r} is not one of {', '.join(names)}; {usage}")
        values[key] = names[key](value)
    return Path(words[0]), SeriesSettings(**values)


def make_series(settings: SeriesSettings, split: Split = "test") -> Phantom:
    """Simulate what the settings describe."""
    shape = tuple(int(size) for size in settings.shape.split(","))
    if len(shape) != 3:
        raise ValueError(f"shape={settings.shape} is not slices,rows,columns; set shape")
    cfg = PhantomData(
        seed=settings.seed,
        pixel_mm=settings.pixel_mm,
        slice_mm=settings.slice_mm,
        shape=shape,  # type: ignore[arg-type]
    )
    return make_phantom(cfg, split, settings.number, growth=settings.growth or None)


def main() -> None:
    """Write a series and say what is in it."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        for field in fields(SeriesSettings):
            print(f"  {field.name}={field.default}")
        return
    folder, settings = parse(sys.argv[1:])
    phantom = make_series(settings)
    paths = write_series(phantom, folder, settings.date)
    print(f"{folder}: {len(paths)} slices of {phantom.case.name}. {STATEMENT}")
    grid = phantom.case.volume.grid
    for nodule in phantom.case.nodules:
        middle = [(part.start + part.stop - 1) / 2 for part in nodule.window]
        place = ", ".join(f"{value:.1f}" for value in grid.to_patient(np.array(middle)))
        print(
            f"  nodule of {nodule.diameter_mm:.1f} mm at ({place}) mm, "
            f"marked by {nodule.num_readers} readers, texture {nodule.texture:g} of 5"
        )


if __name__ == "__main__":
    main()
