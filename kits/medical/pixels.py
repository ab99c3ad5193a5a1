"""Stored pixels become Hounsfield units in one int16 volume; nothing else of its size is made.

Uncompressed pixels are read from the file into their slice of the volume and rescaled there.
D slices, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from kits.medical.headers import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    READ_ERRORS,
    open_file,
)
from kits.medical.refusals import Refusal
from kits.medical.slices import Slice

AIR_HU = -1024  # the least: below, and outside of the reconstruction, there is no density
HU_RANGE = -32768, 32767
POSSIBLE_HU = -900  # padding above it could be lung or tissue
LARGEST_VOLUME_BYTES = 2 * 2**30
NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE)
LOSSY = (
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
)  # fmt: skip
# Values that ran over the end: see _check_wrap. Parts of the range, and rows.
WRAP_REACH, WRAP_STEP, WRAP_FIT, WRAP_ROWS = 0.75, 0.6, 0.3, 3

Progress = Callable[[int, int], None]  # slices read, slices in all


@dataclass
class Tally:
    """What was met in the pixels."""

    num_padded: int = 0  # voxels outside of the reconstruction
    num_below_air: int = 0  # voxels below AIR_HU, set to it

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, num_padded: int, num_below_air: int) -> None:
        """Count voxels of one slice."""
        with self._lock:
            self.num_padded += num_padded
            self.num_below_air += num_below_air


def check_decodable(one: Slice) -> None:
    """Refuse pixels that cannot be there or cannot be decoded, before anything is allocated.

    Raises:
        Refusal: with its reason.
    """
    header, (rows, columns) = one.header, one.shape
    if header.pixels_at is None:
        raise Refusal(
            "unreadable_file", f"{header.path.name} ends before its pixels; copy the scan again"
        )
    if header.syntax in LOSSY:
        raise Refusal(
            "lossy",
            f"{header.path.name} is compressed with loss ({UID(header.syntax).name}), its "
            "densities are no longer exact; give the images as the scanner made them",
        )
    if header.syntax in (*NATIVE, EXPLICIT_BIG):
        wanted, said = rows * columns * 2, header.pixel_bytes or 0
        there = header.file_bytes - header.pixels_at
        if not wanted <= said <= wanted + 1 or there < wanted:
            raise Refusal(
                "unreadable_file",
                f"{header.path.name}: {rows} x {columns} pixels need {wanted:,} bytes, the header "
                f"says {said:,} and {there:,} are there; copy the scan again",
            )
        return
    try:
        is_known = get_decoder(UID(header.syntax)).is_available
    except NotImplementedError:
        is_known = False
    if not is_known or header.pixel_bytes is not None:
        raise Refusal(
            "transfer_syntax",
            f"{header.path.name}: nothing here decodes TransferSyntaxUID={header.syntax} "
            f"({UID(header.syntax).name}); export the scan uncompressed",
        )


def read_volume(
    slices: Sequence[Slice], threads: int | None = None, progress: Progress | None = None
) -> tuple[np.ndarray, Tally]:
    """(D, H, W) int16 Hounsfield units of slices in order; outside of the reconstruction AIR_HU.

    Raises:
        Refusal: pixels are missing, damaged, or not what the headers say.
    """
    shape = len(slices), *slices[0].shape
    if np.prod(shape, dtype=np.int64) * 2 > LARGEST_VOLUME_BYTES:
        raise Refusal(
            "too_large",
            f"the volume has {shape} voxels, more than {LARGEST_VOLUME_BYTES // 2:,}; "
            "give one chest CT",
        )
    volume, tally = np.empty(shape, np.int16), Tally()

    def read_one(number: int) -> None:
        stored = read_stored(slices[number], volume[number])
        to_hounsfield(slices[number], stored, volume[number], tally)

    with ThreadPoolExecutor(threads or _num_threads(slices)) as pool:
        futures = [pool.submit(read_one, number) for number in range(len(slices))]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                if progress is not None:
                    progress(done, len(slices))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return volume, tally


def _num_threads(slices: Sequence[Slice]) -> int:
    """One where pixels are only read: several would wait for each other more than they gain."""
    is_native = all(one.header.syntax in NATIVE for one in slices)
    return 1 if is_native else min(8, os.cpu_count() or 1)


def read_stored(one: Slice, into: np.ndarray) -> np.ndarray:
    """(H, W) stored values as 16-bit patterns, in `into` (int16) itself."""
    header = one.header
    if header.syntax in NATIVE:
        assert header.pixels_at is not None
        with open_file(header.path) as file:
            file.seek(header.pixels_at)
            # Where numbers are big-endian, the bytes would have to change places.
            if file.readinto(memoryview(into).cast("B")) != into.nbytes:
                raise _damaged(one, "the file became shorter while it was read")
        return into
    into[...] = _decode(one)
    return into


def _decode(one: Slice) -> np.ndarray:
    """(H, W) int16 or uint16 patterns of compressed or big-endian pixels."""
    header = one.header
    try:
        with open_file(header.path) as file:
            dataset = dcmread(file)
        if header.syntax != EXPLICIT_BIG:
            _check_codestream(one, dataset.PixelData)
        values, _ = get_decoder(UID(header.syntax)).as_array(dataset, raw=True)
    except Refusal:
        raise
    except (*READ_ERRORS, RuntimeError) as error:
        raise _damaged(one, f"{type(error).__name__}: {error}") from error
    if values.shape != one.shape or values.dtype.itemsize != 2:
        raise _damaged(one, f"they decode to {values.shape} {values.dtype}, not {one.shape}")
    return values.astype(values.dtype.newbyteorder("="), copy=False).view(np.int16)


def _check_codestream(one: Slice, pixel_data: bytes) -> None:
    """What the compressed image says of its own size; a decoder would allocate as much."""
    frames = list(generate_frames(pixel_data, number_of_frames=1))
    if len(frames) != 1:
        raise _damaged(one, f"they hold {len(frames)} frames")
    size = _codestream_size(frames[0])
    if size is not None and size != one.shape:
        raise _damaged(one, f"the compressed image has (rows, columns)={size}, not {one.shape}")


def _codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 image; None where it is none of them."""
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SIZ comes first
        x1, y1, x0, y0 = struct.unpack(">IIII", frame[8:24])
        return y1 - y0, x1 - x0
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], struct.unpack(">H", frame[at + 2 : at + 4])[0]
        if marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xF7):
            rows, columns = struct.unpack(">HH", frame[at + 5 : at + 9])
            return rows, columns
        at += 2 + length
    return 0, 0


def to_hounsfield(one: Slice, stored: np.ndarray, hu: np.ndarray, tally: Tally) -> None:
    """Rescale (H, W) stored patterns to Hounsfield units; `stored` and `hu` may be one array.

    Raises:
        Refusal: values lie where none may.
    """
    values = stored if one.is_signed else stored.view(np.uint16)
    low, high = (-(1 << one.bits_stored - 1), (1 << one.bits_stored - 1) - 1)
    if not one.is_signed:
        low, high = 0, (1 << one.bits_stored) - 1
    padded = None
    if one.padding is not None:
        padded = _padded(one, values)
        if padded is not None:
            # Out of the way of the checks below.
            inside = values[~padded]
            values[padded] = inside.min() if inside.size else low
    least, most = int(values.min()), int(values.max())
    if least < low or most > high:
        raise Refusal(
            "unused_bits",
            f"{one.header.path.name} holds values {least} to {most}, BitsStored={one.bits_stored} "
            f"allows {low} to {high}; the header or the pixels are wrong, export the scan again",
        )
    _check_wrap(one, values, (low, high), (least, most))
    _rescale(one, values, hu, (least, most))
    num_padded = num_below = 0
    if least * one.slope + one.intercept < AIR_HU:
        below = hu < AIR_HU if padded is None else (hu < AIR_HU) & ~padded
        num_below = int(below.sum())
        np.maximum(hu, AIR_HU, out=hu)
    if padded is not None:
        num_padded = int(padded.sum())
        hu[padded] = AIR_HU
    if num_padded or num_below:
        tally.add(num_padded, num_below)


def _padded(one: Slice, values: np.ndarray) -> np.ndarray | None:
    """(H, W) bool: outside of the reconstruction; None: no pixel is."""
    assert one.padding is not None
    first, last = one.padding
    padded = values == first if first == last else (values >= first) & (values <= last)
    if not padded.any():
        return None
    top_hu = last * one.slope + one.intercept
    if POSSIBLE_HU < top_hu <= 4000:
        raise Refusal(
            "padding",
            f"{one.header.path.name}: PixelPaddingValue={last} means {top_hu:g} HU, which is also "
            f"a possible density, and {int(padded.sum())} pixels have it; "
            "give the CT as the scanner made it",
        )
    return padded


def _check_wrap(
    one: Slice, values: np.ndarray, limits: tuple[int, int], found: tuple[int, int]
) -> None:
    """Bone or metal beyond the range comes back at its other end: a pit in what is brightest.

    Values rise towards the pit, fall over nearly the whole range, and would go on rising if the
    range were added; edges of metal do not look like that.
    """
    span = min(limits[1] - limits[0] + 1, 1 << 12)
    if found[1] - found[0] < WRAP_REACH * span:
        return
    wide = values.astype(np.int32)
    rows = int(_pits(wide, span).sum())
    if rows >= WRAP_ROWS:
        raise Refusal(
            "wrapped_values",
            f"{one.header.path.name}: in {rows} rows values fall by more than "
            f"{WRAP_STEP * span:.0f} "
            "amid what is brightest, as when dense bone or metal runs over the end of "
            f"{one.bits_stored} bits; give the CT as the scanner made it",
        )


def _pits(wide: np.ndarray, span: int) -> np.ndarray:
    """(H,) bool: rows in which values fall into a pit and come back."""
    found = []
    for values in (wide, wide[:, ::-1]):
        before, high, low = values[:, :-2], values[:, 1:-1], values[:, 2:]
        fits = np.abs(high + (high - before) - (low + span)) < WRAP_FIT * span
        found.append((high - low > WRAP_STEP * span) & (high >= before) & fits)
    width = wide.shape[1]
    falls = np.where(found[0], np.arange(1, width - 1), width).min(1)
    rises = np.where(found[1], width - 1 - np.arange(1, width - 1), -1).max(1)
    return falls < rises


def _rescale(one: Slice, values: np.ndarray, hu: np.ndarray, found: tuple[int, int]) -> None:
    """Write Hounsfield units."""
    ends = [value * one.slope + one.intercept for value in found]
    if ends[0] < HU_RANGE[0] or ends[1] > HU_RANGE[1]:
        raise Refusal(
            "hu_range",
            f"{one.header.path.name} has values from {ends[0]:g} to {ends[1]:g} HU, beyond "
            f"{HU_RANGE[0]} .. {HU_RANGE[1]}; its sign or its rescaling is wrong, export it again",
        )
    if one.slope == 1 and one.intercept == int(one.intercept):
        # Exact even where the intermediate wraps: the ends were checked, and 16 bits wrap alike.
        patterns = values.view(np.uint16)
        offset = np.uint16(int(one.intercept) & 0xFFFF)
        np.add(patterns, offset, out=hu.view(np.uint16))
    else:
        hu[...] = np.rint(values * one.slope + one.intercept)


def pixel_digest(one: Slice) -> str:
    """sha256 of the stored values."""
    stored = read_stored(one, np.empty(one.shape, np.int16))
    return hashlib.sha256(stored.tobytes()).hexdigest()


def _damaged(one: Slice, reason: str) -> Refusal:
    return Refusal(
        "undecodable",
        f"the pixels of {one.header.path.name} cannot be read: {reason}; copy the scan again",
    )
