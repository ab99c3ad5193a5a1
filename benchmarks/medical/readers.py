"""Who reads a folder of DICOM: ours, and the stock readers, each as its documentation shows.

A reader gives an array and a matrix from its indices to points (x, y, z) in the patient (LPS).
"""

from __future__ import annotations

import importlib.util
import os
import resource
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

Read = tuple[np.ndarray, np.ndarray]  # voxels; (4, 4)
LIMIT_S, MEMORY_BYTES = 60, 12 * 2**30


def by_ours(folder: Path) -> Read:
    """This kit's `read_scan`."""
    from kits.medical.dicom import read_scan

    volume = read_scan(folder).volume
    matrix = np.eye(4)
    matrix[:3, :3] = (volume.grid.axes * np.array(volume.grid.spacing_mm)[:, None]).T
    matrix[:3, 3] = volume.grid.origin_mm
    return volume.voxels, matrix


def by_simpleitk(folder: Path) -> Read:
    """SimpleITK's ImageSeriesReader, the longest of the series that GDCM finds."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    found = reader.GetGDCMSeriesIDs(str(folder))
    files = [reader.GetGDCMSeriesFileNames(str(folder), one) for one in found]
    reader.SetFileNames(max(files, key=len))
    image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), matrix


def by_monai_pydicom(folder: Path) -> Read:
    """MONAI's PydicomReader."""
    from monai.data import PydicomReader

    return _by_monai(PydicomReader(), folder)


def by_monai_itk(folder: Path) -> Read:
    """MONAI's ITKReader."""
    from monai.data import ITKReader

    return _by_monai(ITKReader(), folder)


def _by_monai(reader, folder: Path) -> Read:
    voxels, meta = reader.get_data(reader.read(folder))
    matrix = np.array(meta["affine"], float)
    # MONAI says RAS, the patient's axes of DICOM are LPS.
    return np.asarray(voxels), np.diag([-1.0, -1, 1, 1]) @ matrix


READERS: dict[str, Callable[[Path], Read]] = {
    "ours": by_ours,
    "SimpleITK": by_simpleitk,
    "MONAI PydicomReader": by_monai_pydicom,
    "MONAI ITKReader": by_monai_itk,
}


def available() -> list[str]:
    """Readers whose packages are here; MONAI's ITKReader needs `itk`, which nothing else does."""
    has_itk = importlib.util.find_spec("itk") is not None
    return [name for name in READERS if name != "MONAI ITKReader" or has_itk]


class Worker:
    """A process that reads with one reader; its death or its silence is an answer too."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool: ProcessPoolExecutor | None = None

    def read(self, folder: Path) -> Read | str:
        """What was read, or why not."""
        if self.pool is None:
            context = get_context("spawn")
            self.pool = ProcessPoolExecutor(1, context, initializer=_start)
        try:
            return self.pool.submit(_read, self.name, folder).result(LIMIT_S)
        except BrokenProcessPool:
            self.pool = None
            return "crash: the process died"
        except TimeoutError:
            self.close()
            return f"crash: more than {LIMIT_S} s"

    def close(self) -> None:
        """End the process."""
        if self.pool is not None:
            for process in list((self.pool._processes or {}).values()):
                process.kill()
            self.pool.shutdown(cancel_futures=True)
            self.pool = None


def _start() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")
    # ITK writes its warnings to the terminal whatever one asks.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _read(name: str, folder: Path) -> Read | str:
    try:
        voxels, matrix = READERS[name](folder)
    except Exception as error:  # noqa: BLE001 readers raise anything; that is what is recorded
        text = str(error).strip().splitlines()
        return f"{type(error).__name__}: {text[-1] if text else ''}"
    return voxels, matrix
