"""Smooth quantities of a simulated body, kept on a coarse grid and read at any voxel.

Points and axes are (z, y, x) in millimetres here: z to the head, y to the back, x to the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]  # positions of slices, rows, columns in mm


@dataclass(frozen=True)
class Field:
    """Values on a coarse grid; between its points they are interpolated."""

    origin_mm: np.ndarray  # (3,)
    step_mm: float
    values: np.ndarray  # (d, h, w) float32
    is_periodic: bool = False  # beyond its end it begins again; else edges are clamped

    def on(self, axes: Axes) -> np.ndarray:
        """(D, H, W) float32: trilinear at every voxel of the axes."""
        (first, weights), rows, columns = (self._between(axes, number) for number in range(3))
        count = len(self.values)
        needed, place = np.unique([first, (first + 1) % count], return_inverse=True)
        # As matrices: far quicker than picking along the short axes.
        values = self.values[needed] @ _matrix(*columns, self.values.shape[2]).T
        values = _matrix(*rows, self.values.shape[1]) @ values
        result = np.empty((len(first), *values.shape[1:]), np.float32)
        low, high = place.reshape(2, -1)
        for number, slice_ in enumerate(result):
            np.subtract(values[high[number]], values[low[number]], out=slice_)
            slice_ *= weights[number]
            slice_ += values[low[number]]
        return result

    def _between(self, axes: Axes, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each position: the cell before it, and how far it lies towards the next."""
        count = self.values.shape[number]
        place = (axes[number] - self.origin_mm[number]) / self.step_mm
        place = place % count if self.is_periodic else np.clip(place, 0, count - 1.001)
        first = place.astype(np.int64)
        return first, (place - first).astype(np.float32)

    def at(self, points: np.ndarray) -> np.ndarray:
        """(n,) values at (n, 3) points."""
        place = (np.asarray(points) - self.origin_mm) / self.step_mm
        return map_coordinates(self.values, place.T, order=1, mode="nearest")


def _matrix(first: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    matrix = np.zeros((len(first), count), np.float32)
    row = np.arange(len(first))
    matrix[row, first] = 1 - weight
    matrix[row, (first + 1) % count] += weight
    return matrix


def as_distance(values: np.ndarray, step_mm: float) -> np.ndarray:
    """Scale an implicit function so that it is about the distance to its zero level, in mm."""
    slopes = np.gradient(values, step_mm)
    steepness = np.sqrt(sum(slope**2 for slope in slopes))
    return (values / np.maximum(steepness, 1e-3)).astype(np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], length: float, strength: float
) -> np.ndarray:
    """Random values with a correlation length (in cells) and a standard deviation."""
    noise = gaussian_filter(rng.standard_normal(shape, np.float32), length, mode="wrap")
    return noise * np.float32(strength / max(noise.std(), 1e-9))


def coverage(distance_mm: np.ndarray, edge_mm: float) -> np.ndarray:
    """Share of a voxel that lies inside, from the signed distance (positive inside)."""
    share = distance_mm * np.float32(1 / edge_mm)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def blend(hu: np.ndarray, value: np.ndarray | float, share: np.ndarray) -> None:
    """Replace, in place, a share of each voxel by another tissue."""
    change = value - hu
    change *= share
    hu += change
