"""A part under light: how bright each place is, undamaged and damaged."""

from __future__ import annotations

import math

import numpy as np

from kits.defect.data.render.product import Product
from kits.defect.optics_config import OpticsConfig

Plane = np.ndarray | float


class Scene:
    """One part in the camera's frame, of which a window is seen.

    Brightness is in shares of the full well. `origin` is the pixel of the camera's frame at the
    window's corner; rows and columns count inside of the window.
    """

    def __init__(
        self,
        product: Product,
        optics: OpticsConfig,
        origin: tuple[int, int],
        slopes: np.ndarray,
        grain: np.ndarray,
    ) -> None:
        """Set up the light.

        Args:
            product: surface and light.
            optics: the camera's frame, and how bright its picture is.
            origin: (row, column).
            slopes: (H, W) float32 of rms 1, see texture.py.
            grain: (H, W) float32 of rms 1.
        """
        self.product, self.optics, self.origin = product, optics, origin
        self.shape: tuple[int, int] = (slopes.shape[0], slopes.shape[1])
        surface = product.surface
        # So that brightness changes by `texture`: the lobe's steepness where the light hits it.
        off = product.light.offset[0] / surface.spread[0]
        lobe = surface.specular * math.exp(-0.5 * off**2)
        steep = abs(off) / surface.spread[0] * lobe / (surface.diffuse + lobe)
        slopes *= np.float32(min(surface.texture / max(steep, 1e-6), 0.5 * surface.spread[0]))
        grain *= np.float32(surface.grain)
        grain += np.float32(1)
        self._slopes, self._grain = slopes, np.maximum(grain, np.float32(0.1), out=grain)
        self._exposure = 1.0
        rows = np.linspace(0, optics.sensor_height_px, 18)[:, None] - origin[0]
        columns = np.linspace(0, optics.sensor_width_px, 32)[None, :] - origin[1]
        mean = float(self._shade(rows, columns, 0.0, 1.0).mean())
        self._exposure = optics.level / mean

    def whole(self) -> np.ndarray:
        """(H, W) float32 brightness of the bare surface."""
        rows = np.arange(self.shape[0], dtype=np.float32)[:, None]
        columns = np.arange(self.shape[1], dtype=np.float32)[None, :]
        return self._shade(rows, columns, self._slopes, self._grain)

    def at(
        self, rows: np.ndarray, columns: np.ndarray, slope: tuple[Plane, Plane], albedo: Plane = 1.0
    ) -> np.ndarray:
        """Brightness of pixels with another slope and reflectance.

        Args:
            rows: integer indices that broadcast with those of columns.
            columns: the same.
            slope: what is added, to the right and down.
            albedo: what the reflectance is multiplied by.
        """
        first, second = self.product.surface.axis, self._second_axis()
        d1 = slope[0] * first[0] + slope[1] * first[1]
        d2 = slope[0] * second[0] + slope[1] * second[1]
        return self._shade(
            rows, columns, self._slopes[rows, columns] + d1, self._grain[rows, columns], d2
        ) * albedo  # fmt: skip

    def _second_axis(self) -> tuple[float, float]:
        first = self.product.surface.axis
        return -first[1], first[0]

    def _shade(
        self, rows: Plane, columns: Plane, slope: Plane, grain: Plane, slope2: Plane = 0.0
    ) -> np.ndarray:
        surface, light = self.product.surface, self.product.light
        half = self.optics.sensor_width_px / 2
        u = (columns + (self.origin[1] - half)) * (1 / half)
        v = (rows + (self.origin[0] - self.optics.sensor_height_px / 2)) * (1 / half)
        offset, drift_u, drift_v = light.offset, light.drift_u, light.drift_v
        lobe: np.ndarray = slope - (u * drift_u[0] + (v * drift_v[0] + offset[0]))
        lobe *= 1 / surface.spread[0]
        lobe *= lobe
        second = slope2 - (u * drift_u[1] + (v * drift_v[1] + offset[1]))
        second *= 1 / surface.spread[1]
        second *= second
        lobe += second
        lobe *= -0.5
        np.exp(lobe, out=lobe)
        lobe *= surface.specular
        lobe += surface.diffuse
        even = u * light.tilt[0] - light.vignette * u * u
        even = even + (v * light.tilt[1] - light.vignette * v * v + 1.0)
        even *= self._exposure
        lobe *= even
        lobe *= grain
        return lobe
