"""From the parts of a simulated chest to the Hounsfield units of every voxel, before a scanner."""

from __future__ import annotations

from functools import cache

import numpy as np

from kits.medical.data.phantom_anatomy import Anatomy
from kits.medical.data.phantom_field import Axes, Field, blend, coverage, smooth_noise
from kits.medical.data.phantom_nodules import PlacedNodule
from kits.medical.data.phantom_spine import draw_spine
from kits.medical.data.phantom_thorax import Thorax
from kits.medical.data.phantom_tubes import Tissue, paint

AIR_HU, FAT_HU, MUSCLE_HU, LIVER_HU, SKIN_HU = -1000.0, -98.0, 52.0, 58.0, 0.0
LUNG_HU = -870.0
TABLE_HU = 820.0  # more than air
CORTEX = Tissue(520.0, MUSCLE_HU)
MARROW = Tissue(190.0, CORTEX.hu)
CARTILAGE = Tissue(105.0, 0.0)
SOFT = Tissue(35.0, LUNG_HU)
WALL = Tissue(0.0, LUNG_HU)
LUMEN = Tissue(AIR_HU, WALL.hu)
FISSURE_HU = 260.0  # more than the lung around it
BACKGROUND_MM = 2.0  # edges between fat and muscle need no more
GRAIN_CELLS, GRAIN_MM = 128, 0.75


class Chest:
    """A patient, and the Hounsfield units of any part of him."""

    def __init__(self, thorax: Thorax, anatomy: Anatomy, nodules: tuple[PlacedNodule, ...]) -> None:
        self.thorax, self.anatomy, self.nodules = thorax, anatomy, nodules

    def hu(self, axes: Axes) -> np.ndarray:
        """(D, H, W) float32 at the axes' points."""
        thorax, anatomy = self.thorax, self.anatomy
        edge_mm = float(np.mean([axis[1] - axis[0] for axis in axes[1:]]))
        hu = self._background(axes).on(axes)
        blood_hu = thorax.build.blood_hu
        paint(hu, axes, anatomy.cartilage, CARTILAGE, edge_mm)
        paint(hu, axes, anatomy.ribs, CORTEX, edge_mm)
        paint(hu, axes, anatomy.marrow, MARROW, edge_mm)
        draw_spine(hu, axes, thorax)
        paint(hu, axes, anatomy.blood, Tissue(blood_hu, FAT_HU), edge_mm)
        blend(hu, self._parenchyma(axes, edge_mm), coverage(thorax.lungs.on(axes), edge_mm))
        paint(hu, axes, anatomy.soft, SOFT, edge_mm)
        paint(hu, axes, anatomy.lung_vessels, Tissue(0.9 * blood_hu, LUNG_HU), edge_mm)
        paint(hu, axes, anatomy.airway_walls, WALL, edge_mm)
        paint(hu, axes, anatomy.airways, LUMEN, edge_mm)
        for nodule in self.nodules:
            nodule.draw(hu, axes, edge_mm)
        return hu

    def _parenchyma(self, axes: Axes, edge_mm: float) -> np.ndarray:
        thorax = self.thorax
        hu = thorax.parenchyma_hu.on(axes)
        grain = Field(thorax.grain_origin_mm, GRAIN_MM, _grain(), is_periodic=True).on(axes)
        grain *= np.float32(thorax.build.grain_hu)
        hu += grain
        fissure = np.abs(thorax.fissure.on(axes))
        hu += FISSURE_HU * coverage(0.3 - fissure, edge_mm)
        return hu

    def _background(self, axes: Axes) -> Field:
        """All that is soft and large, on a grid that is coarse but fine enough for it."""
        low = np.array([axis[0] for axis in axes]) - BACKGROUND_MM
        high = np.array([axis[-1] for axis in axes]) + 2 * BACKGROUND_MM
        # The grid lies still in the patient, whatever slices are asked for.
        low = np.floor(low / BACKGROUND_MM) * BACKGROUND_MM
        grid: Axes = tuple(  # type: ignore[assignment]
            np.arange(a, b, BACKGROUND_MM) for a, b in zip(low, high, strict=True)
        )
        thorax = self.thorax
        body, cage = thorax.body.on(grid), thorax.cage.on(grid)
        hu = np.full(body.shape, AIR_HU, np.float32)
        blend(hu, SKIN_HU, coverage(body, BACKGROUND_MM))
        blend(hu, FAT_HU, coverage(body - 2.0, BACKGROUND_MM))
        blend(hu, MUSCLE_HU, thorax.muscle_share(cage, thorax.muscle.on(grid), grid))
        blend(hu, FAT_HU, coverage(cage, 1.5))
        blend(hu, LIVER_HU, coverage(thorax.abdomen.on(grid), 2.0))
        blend(hu, AIR_HU, coverage(thorax.gas.on(grid), 2.0))
        heart_hu = max(45.0, 0.9 * thorax.build.blood_hu)
        blend(hu, heart_hu, coverage(thorax.heart.on(grid), 2.0))
        y, x = grid[1][:, None], grid[2][None, :]
        table = thorax.table_y_mm - 0.0009 * x**2
        np.maximum(hu, TABLE_HU * coverage(3 - np.abs(y - table), 2.0) + AIR_HU, out=hu)
        return Field(low, BACKGROUND_MM, hu)


@cache
def _grain() -> np.ndarray:
    """The lung's own grain: vessels, septa and airways too small to be drawn one by one."""
    rng = np.random.default_rng(17)
    cells = (GRAIN_CELLS,) * 3
    fine = smooth_noise(rng, cells, 0.85 / GRAIN_MM, 1.0)
    wide = smooth_noise(rng, cells, 2.2 / GRAIN_MM, 1.0)
    # Bright specks on a darker ground rather than as many dark as bright ones.
    grain = np.exp(0.55 * fine + 0.25 * wide)
    grain -= grain.mean()
    return (grain / grain.std()).astype(np.float32)
