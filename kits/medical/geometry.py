"""Where voxels lie in a patient. No torch; the geometry of a scan is left to no other library.

Dimensions: D slices, H rows, W columns. Points in the patient are DICOM's: (x, y, z) in
millimetres, x to the patient's left, y to the back, z to the head (LPS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
Window = tuple[slice, slice, slice]  # of voxels, (D, H, W); start and stop given, step 1

ORTHONORMAL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in the patient."""

    shape: Shape  # (D, H, W)
    spacing_mm: Triple  # between voxel centres, (D, H, W)
    origin_mm: Triple  # (x, y, z) of the centre of voxel (0, 0, 0)
    axes: np.ndarray  # (3, 3) float64: row k is the unit vector (x, y, z) along which index k grows

    def __post_init__(self) -> None:
        """Check that this is a grid."""
        if any(size < 1 for size in self.shape):
            raise ValueError(f"shape={self.shape} has an empty axis; give a volume")
        if not all(np.isfinite(step) and step > 0 for step in self.spacing_mm):
            raise ValueError(f"spacing_mm={self.spacing_mm} is not positive; give (D, H, W) in mm")
        axes = np.asarray(self.axes, np.float64)
        if axes.shape != (3, 3) or not np.allclose(
            axes @ axes.T, np.eye(3), atol=ORTHONORMAL_TOLERANCE
        ):
            raise ValueError(f"axes={self.axes} are not three orthogonal unit vectors")
        object.__setattr__(self, "axes", axes)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing_mm))

    def to_patient(self, indices: np.ndarray) -> np.ndarray:
        """(..., 3) indices (d, h, w), fractions allowed -> (..., 3) points (x, y, z) in mm."""
        steps = np.asarray(indices, np.float64) * np.asarray(self.spacing_mm)
        return steps @ self.axes + np.asarray(self.origin_mm)

    def to_index(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points (x, y, z) in mm -> (..., 3) fractional indices (d, h, w)."""
        offsets = np.asarray(points, np.float64) - np.asarray(self.origin_mm)
        return (offsets @ self.axes.T) / np.asarray(self.spacing_mm)

    def crop(self, window: Window) -> Grid:
        """The grid of a window of this one; a window may reach beyond the grid."""
        start = [part.start for part in window]
        shape = tuple(int(part.stop - part.start) for part in window)
        origin = tuple(float(value) for value in self.to_patient(np.array(start)))
        return Grid(shape, self.spacing_mm, origin, self.axes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Volume:
    """A CT on its grid."""

    grid: Grid
    voxels: np.ndarray  # (D, H, W) int16, Hounsfield units

    def __post_init__(self) -> None:
        """Check that voxels and grid fit."""
        if self.voxels.shape != self.grid.shape:
            raise ValueError(f"voxels have shape={self.voxels.shape}, the grid {self.grid.shape}")

    def crop(self, window: Window) -> Volume:
        """A view of a window that lies inside the volume."""
        return Volume(self.grid.crop(window), self.voxels[window])
