"""Reading and writing `.npz`: never with pickle, of bounded size, and always the same bytes."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

MAX_BYTES = 4 << 30
MAX_ARRAYS = 10_000

# What numpy writes, and nothing else: it is matched, never evaluated.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][biufcSU]\d{1,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}(?:, \d{1,18})*,?)?)\), \} *\n"
)
# What the zip reader raises, apart from ValueError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    IndexError,
)
_VERSIONS = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}


def read_npz(data: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`: numbers, booleans and texts; never objects.

    Sizes are compared with what the file declares before anything of that size is made.

    Args:
        data: the file.
        max_bytes: of all arrays together.
    Raises:
        ValueError: not a zip of plain `.npy` files, damaged, an array of objects, or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, max_bytes)
            return {
                member.filename.removesuffix(".npy"): _read_npy(
                    archive.read(member), member.filename
                )
                for member in members
            }
    except _DAMAGE as error:
        raise ValueError(f"the npz is damaged ({error}); write it with numpy.savez") from None


def write_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An `.npz` of some arrays; equal arrays give equal bytes.

    Raises:
        ValueError: an array of objects, structures or dates.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            if array.dtype.kind not in "biufcSU":
                raise ValueError(f"{name} has dtype={array.dtype}, not numbers, booleans or texts")
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            # Stored: what a compressor writes differs between versions of zlib.
            member.compress_type = zipfile.ZIP_STORED
            member.create_system = 3
            member.external_attr = 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    return stream.getvalue()


def _check_members(members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(members) > MAX_ARRAYS:
        raise ValueError(f"the npz has {len(members)} arrays, over {MAX_ARRAYS}; split it")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("the npz has an array twice; write it again")
    if (size := sum(member.file_size for member in members)) > max_bytes:
        raise ValueError(f"the npz unpacks to {size} bytes, over {max_bytes}; refused as a bomb")
    for member in members:
        what = f"the npz member {member.filename!r}"
        if not member.filename.endswith(".npy"):
            raise ValueError(f"{what} is no .npy; write it with numpy.savez")
        if member.flag_bits & 1:
            raise ValueError(f"{what} is encrypted; write it with numpy.savez")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{what} has compression={member.compress_type}; use numpy.savez")


def _read_npy(data: bytes, name: str) -> np.ndarray:
    length_bytes = _VERSIONS.get(data[:8])
    if length_bytes is None:
        raise ValueError(f"{name} is not of .npy version 1 or 2; write it with numpy.savez")
    start = 8 + length_bytes
    end = start + int.from_bytes(data[8:start], "little")
    header = _HEADER.fullmatch(data[start:end]) if end - start <= 10_000 else None
    if header is None:
        raise ValueError(
            f"{name} is not a plain array of numbers, booleans or texts (objects are never "
            "unpickled); write it with numpy.savez"
        )
    try:
        dtype = np.dtype(header[1].decode())
    except TypeError:
        raise ValueError(f"{name} has dtype={header[1]!r}, which numpy does not know") from None
    shape = tuple(int(size) for size in header[3].split(b",") if size.strip())
    # Python's whole numbers: no product can wrap around.
    wanted = dtype.itemsize
    for size in shape:
        wanted *= size
    if wanted != len(data) - end:
        raise ValueError(
            f"{name} has shape {shape} of {dtype}, {wanted} bytes; {len(data) - end} are there"
        )
    array = np.frombuffer(data, dtype, offset=end) if wanted else np.empty(0, dtype)
    return array.reshape(shape, order="F" if header[2] == b"True" else "C").copy()
