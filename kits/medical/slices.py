"""One slice of a CT: what its header says of its place and its values, checked by itself.

H rows, W columns. Points are (x, y, z) in the patient (LPS), millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.medical.headers import Header
from kits.medical.refusals import Refusal

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and what begins with it
LARGEST_MATRIX = 2048
UNIT_TOLERANCE = 1e-3
PIXEL_MM = (0.1, 2.0)  # what reconstructions of a chest have, with room to spare
SLOPES = (1e-3, 100.0)
DERIVED_WORDS = (
    "MIP", "MINIP", "MIN_IP", "MPR", "REFORMAT", "PROJECTION", "AVERAGE", "VOLREN", "RENDER",
    "SUBTRACT", "SCREEN SAVE", "SCREENSAVE",
)  # fmt: skip
# Parts of the words for the chest in BodyPartExamined; what else is there must be a chest too.
CHEST_WORDS = (
    "CHEST", "THORA", "TORAX", "TORSO", "LUNG", "PULMO", "HEART", "CARDIAC", "CORONARY", "MEDIAST",
    "BODY", "TRUNK", "TAP", "CAP", "NONE", "UNKNOWN", "BREAST", "RIB", "STERNUM", "TSPINE",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slice:
    """What one file says."""

    header: Header
    sop_uid: str
    shape: tuple[int, int]  # (H, W)
    position_mm: tuple[float, ...]  # centre of the first pixel
    row_axis: np.ndarray  # (3,) along a row: the column index grows
    column_axis: np.ndarray  # (3,) along a column: the row index grows
    spacing_mm: tuple[float, ...]  # between rows, between columns (H, W)
    thickness_mm: float
    spacing_between_mm: float | None
    location_mm: float | None
    tilt_degrees: float | None
    field_mm: float | None  # reconstruction diameter
    frame_uid: str
    kernel: str
    tube_kv: float | None
    is_signed: bool
    bits_stored: int
    slope: float
    intercept: float
    padding: tuple[int, int] | None  # stored values from ... to

    @property
    def normal(self) -> np.ndarray:
        """(3,) at right angles to the slice."""
        return np.cross(self.row_axis, self.column_axis)


def check_kind(header: Header) -> None:
    """Refuse what is no original CT image of the chest.

    Raises:
        Refusal: with its reason.
    """
    name = header.path.name
    kind = header.text("SOPClassUID")
    modality = header.text("Modality")
    if kind.startswith(SECONDARY_CAPTURE):
        raise Refusal(
            "secondary_capture",
            f"{name} is a secondary capture, a picture without position and Hounsfield units; "
            "give the CT series itself",
        )
    if modality != "CT":
        raise Refusal("wrong_modality", f"{name}: Modality={modality!r} is not CT; give a CT")
    if kind in ENHANCED_CT or int(header.number("NumberOfFrames") if _has(header) else 1) > 1:
        raise Refusal(
            "enhanced_multiframe",
            f"{name} holds several slices in one file, which is not read; export the scan as "
            "classic CT Image Storage, one file for each slice",
        )
    if kind != CT_IMAGE:
        raise Refusal(
            "wrong_modality", f"{name}: SOPClassUID={kind} is not CT Image Storage; give a CT"
        )
    _check_image_type(header)
    part = header.text("BodyPartExamined", "").upper()
    if part and not any(word in part for word in CHEST_WORDS):
        raise Refusal(
            "wrong_body_part",
            f"{name}: BodyPartExamined={part!r} is not the chest; give a chest CT, or correct "
            "the header if it is one",
        )


def _has(header: Header) -> bool:
    return bool(header.text("NumberOfFrames", ""))


def is_localiser(header: Header) -> bool:
    """A scout view, by its own words."""
    return "LOCALIZER" in header.text("ImageType", "").upper().replace("LOCALISER", "LOCALIZER")


def _check_image_type(header: Header) -> None:
    name, image_type = header.path.name, header.text("ImageType").upper()
    if is_localiser(header):
        raise Refusal(
            "localiser", f"{name}: ImageType={image_type} is a scout view; give the slices"
        )
    parts = image_type.split("\\")
    if parts[0] != "ORIGINAL" or any(word in image_type for word in DERIVED_WORDS):
        raise Refusal(
            "derived",
            f"{name}: ImageType={image_type} was computed from other images; give the original "
            "axial reconstruction",
        )
    if parts[1:2] == ["SECONDARY"]:
        raise Refusal(
            "derived", f"{name}: ImageType={image_type} is not a primary image; give the original"
        )
    if header.text("BurnedInAnnotation", "NO").upper() == "YES":
        raise Refusal(
            "burned_in",
            f"{name}: BurnedInAnnotation=YES means text in the pixels; give the original images",
        )
    if header.text("LossyImageCompression", "00") == "01":
        raise Refusal(
            "lossy",
            f"{name}: LossyImageCompression=01, its densities are no longer exact; give the "
            "images as the scanner made them",
        )


def read_slice(header: Header) -> Slice:
    """Take place and values from the header.

    Raises:
        Refusal: something is missing, or cannot be.
    """
    name = header.path.name
    shape = int(header.number("Rows")), int(header.number("Columns"))
    if not all(1 <= size <= LARGEST_MATRIX for size in shape):
        raise Refusal(
            "too_large",
            f"{name}: Rows x Columns={shape[0]} x {shape[1]} is not within 1 .. {LARGEST_MATRIX}; "
            "no CT has such a matrix",
        )
    row_axis, column_axis = _axes(header)
    spacing = header.numbers("PixelSpacing", 2)
    if not all(PIXEL_MM[0] <= step <= PIXEL_MM[1] for step in spacing):
        raise Refusal(
            "implausible_spacing",
            f"{name}: PixelSpacing={spacing} mm is not within {PIXEL_MM[0]} .. {PIXEL_MM[1]} mm; "
            "export the scan again",
        )
    frame = header.text("FrameOfReferenceUID", "")
    if not frame:
        raise Refusal(
            "missing_frame_of_reference",
            f"{name} has no FrameOfReferenceUID, so its position refers to nothing and results "
            "could not be put back; export the scan again from the archive",
        )
    signed, stored = _values(header)
    slope, intercept = _rescale(header)
    return Slice(
        header=header,
        sop_uid=header.text("SOPInstanceUID"),
        shape=shape,
        position_mm=header.numbers("ImagePositionPatient", 3),
        row_axis=row_axis,
        column_axis=column_axis,
        spacing_mm=spacing,
        thickness_mm=_thickness(header),
        spacing_between_mm=header.optional_number("SpacingBetweenSlices"),
        location_mm=header.optional_number("SliceLocation"),
        tilt_degrees=header.optional_number("GantryDetectorTilt"),
        field_mm=header.optional_number("ReconstructionDiameter"),
        frame_uid=frame,
        kernel=header.text("ConvolutionKernel", ""),
        tube_kv=header.optional_number("KVP"),
        is_signed=signed,
        bits_stored=stored,
        slope=slope,
        intercept=intercept,
        padding=_padding(header, is_signed=signed),
    )


def _axes(header: Header) -> tuple[np.ndarray, np.ndarray]:
    """(3,) and (3,): exactly orthonormal, and as near to the header as its digits are exact."""
    both = np.array(header.numbers("ImageOrientationPatient", 6)).reshape(2, 3)
    lengths = np.linalg.norm(both, axis=1)
    if np.abs(lengths - 1).max() > UNIT_TOLERANCE or abs(both[0] @ both[1]) > UNIT_TOLERANCE:
        raise Refusal(
            "not_orthogonal",
            f"{header.path.name}: ImageOrientationPatient={both.round(5).tolist()} are not two "
            "unit vectors at a right angle; export the scan again",
        )
    row = both[0] / lengths[0]
    column = both[1] - (both[1] @ row) * row
    return row, column / np.linalg.norm(column)


def _thickness(header: Header) -> float:
    thickness = header.number("SliceThickness")
    if thickness <= 0:
        raise Refusal(
            "bad_tag",
            f"{header.path.name}: SliceThickness={thickness:g} is not positive; "
            "export the scan again",
        )
    return thickness


def _values(header: Header) -> tuple[bool, int]:
    """Whether values are signed, and how many bits they have."""
    allocated, stored = (int(header.number(key)) for key in ("BitsAllocated", "BitsStored"))
    high = int(header.number("HighBit")) if header.text("HighBit", "") else stored - 1
    signed = int(header.number("PixelRepresentation"))
    samples = int(header.number("SamplesPerPixel")) if header.text("SamplesPerPixel", "") else 1
    photometric = header.text("PhotometricInterpretation")
    if (
        (allocated, samples, photometric) != (16, 1, "MONOCHROME2")
        or not 8 <= stored <= 16
        or high != stored - 1
        or signed not in (0, 1)
    ):
        raise Refusal(
            "pixel_format",
            f"{header.path.name}: BitsAllocated={allocated}, BitsStored={stored}, HighBit={high}, "
            f"PixelRepresentation={signed}, SamplesPerPixel={samples}, {photometric} is not one "
            "16-bit MONOCHROME2 value per pixel; give the CT as the scanner made it",
        )
    return signed == 1, stored


def _rescale(header: Header) -> tuple[float, float]:
    name = header.path.name
    if "ModalityLUTSequence" in header.dataset:
        raise Refusal("rescale", f"{name} has a ModalityLUTSequence, which CT must not have")
    kind = header.text("RescaleType", "HU").upper()
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if kind != "HU" or not SLOPES[0] <= slope <= SLOPES[1] or abs(intercept) > 65536:
        raise Refusal(
            "rescale",
            f"{name}: RescaleType={kind}, RescaleSlope={slope:g}, RescaleIntercept={intercept:g} "
            "do not lead to Hounsfield units; give the CT as the scanner made it",
        )
    return slope, intercept


def _padding(header: Header, *, is_signed: bool) -> tuple[int, int] | None:
    """The range of stored values that mean outside of the reconstruction."""
    if not header.text("PixelPaddingValue", ""):
        return None
    first = int(header.number("PixelPaddingValue"))
    limit = header.text("PixelPaddingRangeLimit", "")
    last = int(header.number("PixelPaddingRangeLimit")) if limit else first
    # Written with the wrong sign as often as with the right one; the 16 bits are the same.
    wrapped = [value & 0xFFFF for value in (first, last)]
    if is_signed:
        wrapped = [value - 0x10000 if value > 0x7FFF else value for value in wrapped]
    return min(wrapped), max(wrapped)
