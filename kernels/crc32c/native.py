"""Native CRC-32C behind numpy arrays."""

from __future__ import annotations

import ctypes

import numpy as np

from kernels.native import load


def crc32c(array: np.ndarray, start: int = 0) -> int:
    """The checksum of an array's bytes in C order; see `crc32c_reference`.

    Args:
        array: any type; gaps between the rows of a view cost nothing.
        start: the checksum of the bytes before.
    Raises:
        RuntimeError: the native library is not built for this machine.
    """
    array, stride, rows, row_bytes = _rows(array)
    return int(
        _declare(load()).deepkits_crc32c_run(
            array.ctypes.data, stride, rows, row_bytes, start, None
        )
    )


def copy_crc32c(array: np.ndarray, out: np.ndarray) -> int:
    """Copy an array without gaps and give the checksum of its bytes, in one pass.

    Args:
        array: any type and shape.
        out: uint8, C-contiguous, one axis, as many bytes.
    Raises:
        ValueError: `out` is of another kind.
        RuntimeError: the native library is not built for this machine.
    """
    is_flat = out.ndim == 1 and out.dtype == np.uint8 and out.flags.c_contiguous
    if not is_flat or out.size != array.nbytes or not out.flags.writeable:
        raise ValueError(
            f"out is {out.dtype} of shape={out.shape}; give {array.nbytes} bytes to write to"
        )
    array, stride, rows, row_bytes = _rows(array)
    return int(
        _declare(load()).deepkits_crc32c_run(
            array.ctypes.data, stride, rows, row_bytes, 0, out.ctypes.data
        )
    )


def _rows(array: np.ndarray) -> tuple[np.ndarray, int, int, int]:
    """The array, with a copy only where a row has gaps: it, its stride, rows and bytes of a row."""
    if array.flags.c_contiguous or not array.size:
        return array, 0, 1, array.nbytes
    if array.ndim < 2 or not array[0].flags.c_contiguous or array.strides[0] < 0:
        array = np.ascontiguousarray(array)
        return array, 0, 1, array.nbytes
    return array, array.strides[0], len(array), array[0].nbytes


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.deepkits_crc32c_run.restype = ctypes.c_uint32
    library.deepkits_crc32c_run.argtypes = [
        *(pointer, number, number, number),
        *(ctypes.c_uint32, pointer),
    ]
    return library
