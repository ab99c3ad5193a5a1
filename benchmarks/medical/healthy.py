"""Small healthy chest CT series of many forms, made here, with their truth.

The truth comes from the numbers that the series is made of, not from the code that reads it.
D slices, H rows, W columns; points (x, y, z) in the patient (LPS), millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498."
AIR_HU = -1024
ORIENTATIONS = {
    "HFS": (1, 0, 0, 0, 1, 0),
    "HFP": (-1, 0, 0, 0, -1, 0),
    "FFS": (-1, 0, 0, 0, 1, 0),
    "FFP": (1, 0, 0, 0, -1, 0),
}


@dataclass(frozen=True)
class Form:
    """What one series is like."""

    seed: int = 0
    shape: tuple[int, int, int] = (16, 40, 44)  # (D, H, W)
    spacing_mm: tuple[float, float, float] = (1.25, 0.75, 0.75)
    thickness_mm: float = 1.25
    origin_mm: tuple[float, float, float] = (-16.5, -14.25, -120.0)
    position: str = "HFS"
    is_signed: bool = False
    bits_stored: int = 12
    intercept: int = -1024
    is_implicit: bool = False
    kernel: str = "BONE"
    names: str = "IM{number:04d}"
    has_locations: bool = True


def forms(count: int) -> list[Form]:
    """`count` forms, each other in most respects; always the same."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng((5, seed))
        step = float(rng.choice([0.5, 0.625, 0.7, 1.0, 1.25, 2.0, 2.5]))
        pixel = float(rng.choice([0.488281, 0.585938, 0.683594, 0.703125, 0.75, 0.976562]))
        is_signed = bool(rng.integers(2))
        found.append(
            Form(
                seed=seed,
                shape=tuple(int(rng.integers(*span)) for span in ((14, 26), (36, 56), (36, 56))),
                spacing_mm=(step, pixel, pixel),
                thickness_mm=step * float(rng.choice([1.0, 1.0, 1.25, 2.0])),
                origin_mm=tuple(round(float(v), 3) for v in rng.uniform(-300, 100, 3)),
                position=str(rng.choice(list(ORIENTATIONS))),
                is_signed=is_signed,
                bits_stored=16 if is_signed else int(rng.choice([12, 16])),
                intercept=int(rng.choice([0, -1024])) if is_signed else -1024,
                is_implicit=bool(rng.integers(2)),
                kernel=str(rng.choice(["BONE", "LUNG", "STANDARD", "B31f", "B70f", "FC51", "C"])),
                names=str(
                    rng.choice(["IM{number:04d}", "{uid}.dcm", "S1/I{number}", "{number}.IMA"])
                ),
                has_locations=bool(rng.integers(2)),
            )
        )
    return found


@dataclass
class Truth:
    """Where the voxels are and what they are."""

    hu: np.ndarray  # (D, H, W) int16
    axes: np.ndarray  # (3, 3): rows are the directions of D, H, W
    spacing_mm: np.ndarray  # (3,)
    origin_mm: np.ndarray  # (3,)

    def to_patient(self, indices: np.ndarray) -> np.ndarray:
        """(N, 3) indices -> (N, 3) points."""
        return indices * self.spacing_mm @ self.axes + self.origin_mm


@dataclass
class Series:
    """Files of a series, which faults then change, and their truth."""

    form: Form
    truth: Truth
    files: dict[str, Dataset | bytes]  # name in the folder -> content
    links: dict[str, Path | str] = field(default_factory=dict)  # name -> where a link points
    cut: dict[str, int] = field(default_factory=dict)  # name -> bytes to take from the end

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng((11, self.form.seed))

    @property
    def slices(self) -> list[tuple[str, Dataset]]:
        """The series' slices from the first position to the last."""
        return [(name, one) for name, one in self.files.items() if isinstance(one, Dataset)]

    def write(self, folder: Path) -> Path:
        """Write all files."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                syntax = content.file_meta.TransferSyntaxUID
                known = (
                    {} if not syntax.is_private else {"implicit_vr": False, "little_endian": True}
                )
                content.save_as(path, enforce_file_format=True, **known)
            if name in self.cut:
                path.write_bytes(path.read_bytes()[: -self.cut[name]])
        for name, target in self.links.items():
            (folder / name).symlink_to(target)
        return folder


def chest(form: Form) -> np.ndarray:
    """(D, H, W) int16 HU: body with fat, lungs, spine, and one nodule in a lung."""
    rng = np.random.default_rng((7, form.seed))
    axes = [np.linspace(-1, 1, size) for size in form.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius = (x / 0.92) ** 2 + (y / 0.8) ** 2
    hu = np.full(form.shape, -1000.0)
    hu[radius < 1] = -100  # fat
    hu[radius < 0.85] = 45
    for side in (-1, 1):
        lung = ((x - side * 0.42) / 0.3) ** 2 + ((y + 0.05) / 0.5) ** 2 + (z / 3) ** 2 < 1
        hu[lung] = -860
    hu[(x**2 + ((y - 0.55) / 0.8) ** 2) < 0.02] = 350
    centre = (z / 0.45) ** 2 + ((x - 0.42) / 0.14) ** 2 + ((y + 0.05) / 0.14) ** 2
    hu[centre < 1] = 35
    noisy = hu + rng.normal(0, 12, form.shape)
    return np.clip(np.rint(noisy), AIR_HU, 3000).astype(np.int16)


def make_series(form: Form, hu: np.ndarray | None = None, series: int = 1) -> Series:
    """A healthy series; `hu` takes the place of the chest, `series` makes another UID."""
    hu = chest(form) if hu is None else hu
    row, column = np.array(ORIENTATIONS[form.position], float).reshape(2, 3)
    normal = np.cross(row, column)
    axes = np.stack([normal, column, row])
    truth = Truth(hu, axes, np.array(form.spacing_mm), np.array(form.origin_mm))
    files: dict[str, Dataset | bytes] = {}
    order = np.random.default_rng((9, form.seed)).permutation(len(hu))
    for number, values in enumerate(hu):
        one = _slice(form, truth, number, values, series)
        # Instance numbers run against the positions in half of the series, as on scanners.
        one.InstanceNumber = number + 1 if form.seed % 2 else len(hu) - number
        name = form.names.format(number=order[number] + 1, uid=one.SOPInstanceUID)
        files[name if series == 1 else f"series{series}/{name}"] = one
    return Series(form, truth, files)


def _slice(form: Form, truth: Truth, number: int, hu: np.ndarray, series: int) -> Dataset:
    place = truth.to_patient(np.array([[number, 0, 0]]))[0]
    uid = f"{ROOT}{form.seed + 1}.{series}"
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if form.is_implicit else ExplicitVRLittleEndian
    )
    one.file_meta.MediaStorageSOPClassUID = CT_IMAGE
    one.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{number + 1}"
    one.SpecificCharacterSet = "ISO_IR 100"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.SOPClassUID, one.SOPInstanceUID = CT_IMAGE, f"{uid}.{number + 1}"
    one.StudyDate = one.SeriesDate = one.AcquisitionDate = "20260301"
    one.StudyTime = "120000"
    one.AccessionNumber = "A1"
    one.Modality, one.Manufacturer, one.BodyPartExamined = "CT", "Self-made", "CHEST"
    one.PatientName, one.PatientID = "Self^Made", f"P{form.seed}"
    one.PatientBirthDate, one.PatientSex = "19600101", "O"
    one.SliceThickness, one.KVP = round(form.thickness_mm, 4), 120
    one.ConvolutionKernel, one.PatientPosition = form.kernel, form.position
    one.StudyInstanceUID, one.SeriesInstanceUID = f"{ROOT}{form.seed + 1}.0", uid
    one.StudyID, one.SeriesNumber = "1", series
    one.SeriesDescription = "chest"
    one.ImagePositionPatient = [round(float(value), 6) for value in place]
    one.ImageOrientationPatient = list(ORIENTATIONS[form.position])
    one.FrameOfReferenceUID = f"{ROOT}{form.seed + 1}.0.1"
    one.PositionReferenceIndicator = ""
    if form.has_locations:
        one.SliceLocation = round(float(place @ truth.axes[0]), 4)
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows, one.Columns = hu.shape
    one.PixelSpacing = list(form.spacing_mm[1:])
    one.BitsAllocated, one.BitsStored = 16, form.bits_stored
    one.HighBit, one.PixelRepresentation = form.bits_stored - 1, int(form.is_signed)
    one.RescaleIntercept, one.RescaleSlope, one.RescaleType = form.intercept, 1, "HU"
    set_stored(one, hu.astype(np.int32) - form.intercept)
    return one


def set_stored(one: Dataset, stored: np.ndarray) -> None:
    """Put stored values into a slice as 16-bit patterns."""
    one["PixelData"] = _pixels((stored & 0xFFFF).astype("<u2"))


def get_stored(one: Dataset) -> np.ndarray:
    """(H, W) int32 stored values of an uncompressed slice."""
    kind = "<i2" if one.PixelRepresentation else "<u2"
    return np.frombuffer(one.PixelData, kind).reshape(one.Rows, one.Columns).astype(np.int32)


def _pixels(values: np.ndarray) -> DataElement:
    return DataElement("PixelData", "OW", values.tobytes())
