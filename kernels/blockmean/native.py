"""Native block means behind numpy arrays."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kernels.blockmean.reference import Factors, check
from kernels.native import load


def block_mean(
    voxels: np.ndarray, factors: Factors, *, threads: int = 1, out: np.ndarray | None = None
) -> np.ndarray:
    """Mean of each block of voxels; see `block_mean_reference`.

    Args:
        voxels: (D, H, W) int16; a view of a larger volume is not copied as long as its rows are
            in one piece.
        factors: voxels of a block along each axis.
        threads: that share the slices.
        out: where to write, C-contiguous float32 of the result's shape; None: a new array.

    Raises:
        ValueError: as the reference's, threads below 1, or an `out` of another kind.
        RuntimeError: the native library is not built for this machine.
    """
    check(voxels, factors)
    if threads < 1:
        raise ValueError(f"threads={threads} is below 1; give 1 or more")
    shape = tuple(-(-size // factor) for size, factor in zip(voxels.shape, factors, strict=True))
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(
            f"out is {out.dtype} of shape={out.shape}; give {shape} float32, in C order"
        )
    if voxels.strides[2] != voxels.itemsize:
        voxels = np.ascontiguousarray(voxels)
    library = _declare(load())
    depth = voxels.shape[0]

    def run(first: int, last: int) -> None:
        library.deepkits_blockmean_run(
            voxels.ctypes.data, voxels.strides[0], voxels.strides[1],
            *voxels.shape, *factors, first, last, out.ctypes.data,
        )  # fmt: skip

    bounds = [depth and shape[0] * at // threads for at in range(threads + 1)]
    if threads == 1:
        run(0, shape[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, bounds[:-1], bounds[1:]))
    return out


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.deepkits_blockmean_run.restype = None
    library.deepkits_blockmean_run.argtypes = [pointer, *[number] * 10, pointer]
    return library
