"""Thick slices, twice as many of them: the crops' path beside resamplers of whole volumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK
from scipy import ndimage

from benchmarks.medical.study import Study, spread
from kits.medical.geometry import Grid, Volume
from kits.medical.infer.crops import FineGrid

SHAPE, QUICK_SHAPE = (120, 512, 512), (24, 64, 64)
SPACING_MM = (2.5, 0.7, 0.7)
MULTIPLE = 8
NUM_CROPS, CROP_MM, HALO = 32, 20.0, 16


def compare_resampling(study: Study) -> dict[str, Any]:
    """Seconds of each, and how far its voxels lie from SimpleITK's linear ones."""
    shape = QUICK_SHAPE if study.quick else SHAPE
    rng = np.random.default_rng(0)
    voxels = rng.integers(-1000, 400, shape).astype(np.int16)
    volume = Volume(Grid(shape, SPACING_MM, (0.0, 0.0, 0.0), np.eye(3)[::-1]), voxels)
    fine = FineGrid(volume, MULTIPLE)
    depth = (shape[0] - 1) * fine.factor + 1
    wanted = _simpleitk(volume, depth, fine.factor, SimpleITK.sitkLinear)

    def whole() -> np.ndarray:
        out = np.empty(fine.shape, np.float32)
        fine.cut(tuple(slice(0, size) for size in fine.shape), out)
        return out[:depth, : shape[1], : shape[2]]

    places = rng.random((NUM_CROPS, 3)) * shape

    def crops() -> None:
        for place in places:
            window = fine.window(place, CROP_MM, HALO)
            out = np.empty([part.stop - part.start for part in window], np.float32)
            fine.cut(window, out)

    zoom = (depth / shape[0], 1, 1)
    ways: dict[str, Callable[[], np.ndarray | None]] = {
        f"deepkits, {NUM_CROPS} crops": crops,
        "deepkits, whole": whole,
        "SimpleITK linear": lambda: _simpleitk(volume, depth, fine.factor, SimpleITK.sitkLinear),
        "scipy zoom, order 1": lambda: ndimage.zoom(voxels, zoom, np.float32, order=1),
        "scipy zoom, order 3": lambda: ndimage.zoom(voxels, zoom, np.float32, order=3),
    }
    found: dict[str, Any] = {}
    for name, way in ways.items():
        walls, result = [], None
        for _ in range(1 if "order 3" in name else study.rounds):
            started = time.perf_counter()
            result = way()
            walls.append(time.perf_counter() - started)
        error = None if result is None else round(float(np.abs(result - wanted).max()), 4)
        found[name] = {"wall_s": spread(walls), "max_error_hu": error}
    return found


def _simpleitk(volume: Volume, depth: int, factor: int, how: int) -> np.ndarray:
    image = SimpleITK.GetImageFromArray(volume.voxels)
    image.SetSpacing(volume.grid.spacing_mm[::-1])
    shape = volume.grid.shape
    spacing = (*volume.grid.spacing_mm[:0:-1], volume.grid.spacing_mm[0] / factor)
    made = SimpleITK.Resample(
        image, (shape[2], shape[1], depth), SimpleITK.Transform(), how, image.GetOrigin(), spacing,
        image.GetDirection(), 0.0, SimpleITK.sitkFloat32,
    )  # fmt: skip
    return np.asarray(SimpleITK.GetArrayFromImage(made))
