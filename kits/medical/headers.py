"""One DICOM file: its header, and where its pixels lie. Nothing here trusts the file.

Values are taken from the raw elements, which is several times faster than pydicom's conversion and
raises nothing but refusals; the dataset itself stays as it was read.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from kits.medical.refusals import Refusal

LARGEST_FILE_BYTES = 512 * 2**20
AHEAD_BYTES = 4 * 2**20
LARGEST_VALUE_BYTES = 4 * 2**20  # longer header values stay on the disk
DICOMDIR = "1.2.840.10008.1.3.10"
IMAGES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.7")
DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT_LITTLE, EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
LONG_FORMS = (b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV")
# What pydicom raises at files that are not what they say.
READ_ERRORS = (
    InvalidDicomError, BytesLengthException, EOFError, OSError, ValueError, KeyError, TypeError,
    AttributeError, NotImplementedError, RecursionError, OverflowError, struct.error, MemoryError,
)  # fmt: skip
INTEGERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}
PIXEL_DATA = 0x7FE00010


class NotDicom(ValueError):
    """The file is something else."""


@dataclass(frozen=True, slots=True)
class Header:
    """A file's header."""

    path: Path
    dataset: FileDataset  # without pixels
    syntax: str  # UID of the transfer syntax
    pixels_at: int | None  # where the value of Pixel Data begins; None: the file has none
    pixel_bytes: int | None  # its length; None: encapsulated, that is compressed
    file_bytes: int

    def text(self, keyword: str, default: str | None = None) -> str:
        """The value as text, several parts with a backslash between.

        Raises:
            Refusal: it is missing or empty, and there is no default.
        """
        element = self.dataset.get_item(_tag(keyword))
        value = element.value if element is not None else None
        if isinstance(element, RawDataElement) and isinstance(value, bytes):
            form = INTEGERS.get(_form(element, keyword))
            text = _integers(value, form, element) if form else value.decode("latin-1")
        elif value is None:
            text = ""
        elif isinstance(value, str) or not hasattr(value, "__iter__"):
            text = str(value)
        else:
            text = "\\".join(str(part) for part in value)
        text = text.strip(" \0")
        if text:
            return text
        if default is None:
            raise Refusal(
                "missing_tag",
                f"{self.path.name} has no {keyword}, without which its place or its values are not "
                "known; export the scan again from the scanner or the archive",
            )
        return default

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """A value of several numbers.

        Raises:
            Refusal: it is missing, or not so many finite numbers.
        """
        text = self.text(keyword)
        try:
            values = tuple(float(part) for part in text.split("\\"))
        except ValueError:
            values = ()
        if len(values) != count or not all(math.isfinite(value) for value in values):
            raise Refusal(
                "bad_tag",
                f"{self.path.name}: {keyword}={text!r} is not {count} finite number(s); "
                "export the scan again",
            )
        return values

    def number(self, keyword: str) -> float:
        """A value of one number; refuses as `numbers` does."""
        return self.numbers(keyword, 1)[0]

    def optional_number(self, keyword: str) -> float | None:
        """A value of one number; None where there is none."""
        return self.number(keyword) if self.text(keyword, "") else None


def read_header(path: Path) -> Header:
    """Read a file up to its pixels.

    Raises:
        NotDicom: it is no DICOM file.
        Refusal: it is one that cannot be read.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(132)
        if head[128:] != b"DICM":
            if head[:4] in (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x02\x00\x00\x00"):
                raise _unreadable(path, "it begins like a DICOM file without its first 132 bytes")
            raise NotDicom(path.name)
        if size > LARGEST_FILE_BYTES:
            raise Refusal(
                "too_large",
                f"{path.name} has {size:,} bytes, slices have at most {LARGEST_FILE_BYTES:,}; "
                "take it out of the folder",
            )
        if DEFLATED.encode() in head + file.read(1024):
            # Inflating a few kilobytes may need any amount of memory.
            raise Refusal(
                "transfer_syntax",
                f"{path.name} is deflated ({DEFLATED}), which is not read; export the scan "
                "uncompressed (Explicit VR Little Endian)",
            )
        file.seek(0)
        try:
            dataset = dcmread(file, stop_before_pixels=True, defer_size=LARGEST_VALUE_BYTES)
            meta = dataset.file_meta
            syntax = str(meta.TransferSyntaxUID) if "TransferSyntaxUID" in meta else ""
            if not syntax:
                raise _unreadable(path, "it does not say how it is encoded (TransferSyntaxUID)")
            if meta.get("MediaStorageSOPClassUID") == DICOMDIR:
                return Header(path, dataset, syntax, None, None, size)
            where, length = _pixel_element(file, syntax)
            if where is not None and size <= AHEAD_BYTES:
                # Read by the kernel while the other headers are looked at.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            if where is None and _ends_early(dataset):
                raise _unreadable(path, "it ends within its header")
        except Refusal:
            raise
        except READ_ERRORS as error:
            raise _unreadable(path, f"{type(error).__name__}: {error}") from error
        return Header(path, dataset, syntax, where, length, size)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; no link, pipe or device is ever opened.

    Raises:
        NotDicom: it is no regular file.
        Refusal: it cannot be opened.
    """
    try:
        # NONBLOCK: a pipe would wait for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotDicom(path.name)
    return os.fdopen(descriptor, "rb")


def _ends_early(dataset: FileDataset) -> bool:
    """Whether a file without pixels should have some, or its last value is shorter than it says.

    A shortened value can be a valid one, of another series say.
    """
    if dataset.file_meta.get("MediaStorageSOPClassUID", "") in IMAGES:
        return True
    last = dataset.get_item(max(dataset.keys(), default=0))
    return (
        isinstance(last, RawDataElement)
        and last.length != 0xFFFFFFFF
        and last.value is not None
        and len(last.value) < last.length
    )


def _pixel_element(file: BinaryIO, syntax: str) -> tuple[int | None, int | None]:
    """Where the pixels begin, and how long they are; the file stands before their element."""
    start = file.read(12)
    if len(start) < 8:
        return None, None
    order = ">" if syntax == EXPLICIT_BIG else "<"
    group, element = struct.unpack(order + "HH", start[:4])
    if (group << 16 | element) != PIXEL_DATA:
        return None, None
    at = file.tell() - len(start)
    if syntax == IMPLICIT_LITTLE:
        return at + 8, struct.unpack("<I", start[4:8])[0]
    if start[4:6] not in LONG_FORMS or len(start) < 12:
        raise ValueError(f"the pixels' element has VR {start[4:6]!r}")
    length = struct.unpack(order + "I", start[8:12])[0]
    return at + 12, None if length == 0xFFFFFFFF else length


def _unreadable(path: Path, reason: str) -> Refusal:
    return Refusal(
        "unreadable_file",
        f"{path.name} cannot be read ({reason}), and a slice may be lost with it; "
        "copy the scan again",
    )


def _integers(value: bytes, form: str, element: RawDataElement) -> str:
    order = "<" if element.is_little_endian else ">"
    count = len(value) // struct.calcsize(form)
    parts = struct.unpack_from(f"{order}{count}{form}", value)
    return "\\".join(str(part) for part in parts)


_TAGS: dict[str, int] = {}
# VRs of what is read as integers, where the file itself does not say them (implicit VR).
_FORMS = {
    "Rows": "US",
    "Columns": "US",
    "BitsAllocated": "US",
    "BitsStored": "US",
    "HighBit": "US",
    "PixelRepresentation": "US",
    "SamplesPerPixel": "US",
    "PixelPaddingValue": "US",
    "PixelPaddingRangeLimit": "US",
}


def _tag(keyword: str) -> int:
    if keyword not in _TAGS:
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        _TAGS[keyword] = tag
    return _TAGS[keyword]


def _form(element: RawDataElement, keyword: str) -> str:
    is_said = element.VR is not None and element.VR != "UN"
    return element.VR if is_said else _FORMS.get(keyword, "")
