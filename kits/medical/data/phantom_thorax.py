"""The large parts of a simulated chest: outline, lungs, mediastinum, diaphragm, as coarse fields.

Points are (z, y, x) in millimetres: z = 0 at the lowest point of the lungs, y to the back, x to
the left, (y, x) = 0 in the middle of the chest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.medical.data.phantom_field import Axes, Field, as_distance, coverage, smooth_noise

STEP_MM = 4.0
MARGIN_MM = 48.0


@dataclass(frozen=True)
class Build:
    """A simulated patient's measures."""

    half_width_mm: float  # of the rib cage's inside
    half_depth_mm: float
    height_mm: float  # of the lungs
    fat_mm: float  # under the skin
    muscle_mm: float
    heart: float  # 1 is usual
    dome_mm: float  # height of the right diaphragm
    blood_hu: float  # 40; more with contrast
    lung_hu: float  # in the middle of the lungs
    gradient_hu: float  # back minus front
    emphysema: float  # 0 none
    grain_hu: float  # of the lung's own texture
    gas_mm: float  # radius of the bubble in the stomach

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Build:
        """A patient."""
        size = rng.normal(1, 0.07)
        return cls(
            half_width_mm=float(np.clip(122 * size * rng.normal(1, 0.03), 100, 142)),
            half_depth_mm=float(np.clip(82 * size * rng.normal(1, 0.05), 66, 104)),
            height_mm=float(np.clip(245 * size * rng.normal(1, 0.06), 195, 300)),
            fat_mm=float(rng.uniform(6, 26)),
            muscle_mm=float(rng.uniform(7, 16)),
            heart=float(np.clip(rng.normal(1, 0.08), 0.82, 1.2)),
            dome_mm=float(rng.uniform(42, 66)),
            blood_hu=float(rng.choice([rng.normal(42, 4), rng.normal(150, 30)], p=[0.6, 0.4])),
            lung_hu=float(rng.normal(-868, 22)),
            gradient_hu=float(rng.uniform(25, 65)),
            emphysema=float(rng.uniform(0, 1) if rng.random() < 0.3 else 0),
            grain_hu=float(rng.uniform(44, 70)),
            gas_mm=float(rng.uniform(12, 24) if rng.random() < 0.6 else 0),
        )


def spine_y_mm(build: Build) -> float:
    """Where the vertebral bodies' centres lie."""
    return build.half_depth_mm - 36


@dataclass(frozen=True)
class Thorax:
    """Signed distances in mm, positive inside, and the lung's own HU."""

    build: Build
    body: Field
    muscle: Field
    cage: Field
    heart: Field
    abdomen: Field
    gas: Field  # in the stomach
    lungs: Field
    fissure: Field  # distance to the nearest fissure
    parenchyma_hu: Field
    wall_texture: Field  # random
    grain_origin_mm: np.ndarray  # where the lung's grain begins

    @property
    def spine_y_mm(self) -> float:
        """Where the vertebral bodies' centres lie."""
        return spine_y_mm(self.build)

    @property
    def table_y_mm(self) -> float:
        """Where the patient lies."""
        build = self.build
        return build.half_depth_mm + build.muscle_mm + build.fat_mm + 24

    def muscle_share(self, cage: np.ndarray, muscle: np.ndarray, axes: Axes) -> np.ndarray:
        """How much of a voxel of the wall is muscle: two layers with fat between them."""
        texture = self.wall_texture.on(axes)
        share = coverage(muscle + 2.5 * texture, 2.0)
        # Fat lies between the intercostal muscles and the outer ones, and in clefts.
        cleft = np.abs(-cage - 11 - 4 * texture)
        share *= np.clip(cleft / 1.8, 0.1, 1)
        share *= np.clip(1.5 + texture, 0.55, 1)
        return share


def build_thorax(build: Build, rng: np.random.Generator) -> Thorax:
    """The fields of one patient."""
    z, y, x, origin = _coarse_grid(build)
    wobble = smooth_noise(rng, np.broadcast_shapes(z.shape, y.shape, x.shape), 5, 1.5)
    cage = _cage(build, z, y, x) + wobble
    bulges = smooth_noise(rng, wobble.shape, 3, 2.6)
    heart = as_distance(_heart(build, z, y, x), STEP_MM) + wobble
    middle = _smooth_max(_mediastinum(build, z, y, x) + bulges, heart + 2, 5)
    above = z - _diaphragm(build, y, x)
    lungs = _smooth_min(_smooth_min(cage, -middle, 4), above + wobble, 4)
    wall = (build.muscle_mm, build.fat_mm)
    body, muscle = (_outline(build, z, y, x, sum(wall[: 2 - k])) for k in range(2))

    def field(values: np.ndarray, *, normal: bool = True) -> Field:
        shape = np.broadcast_shapes(z.shape, y.shape, x.shape)
        values = np.broadcast_to(values, shape).astype(np.float32)
        return Field(origin, STEP_MM, as_distance(values, STEP_MM) if normal else values)

    return Thorax(
        build=build,
        body=field(body),
        muscle=field(muscle + 2 * wobble),
        cage=field(cage),
        heart=field(heart, normal=False),
        abdomen=field(_smooth_min(cage, -above - 2, 3)),
        gas=field(_gas(build, z, y, x) + wobble, normal=False),
        lungs=field(lungs),
        fissure=field(_fissures(build, z, y, x) + 2 * wobble),
        parenchyma_hu=field(_parenchyma(build, rng, y, wobble.shape), normal=False),
        wall_texture=field(smooth_noise(rng, wobble.shape, 2.5, 1.0), normal=False),
        grain_origin_mm=rng.uniform(0, 96, 3),
    )


def _coarse_grid(build: Build) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    reach = build.muscle_mm + build.fat_mm + MARGIN_MM
    low = np.array([-60.0, -build.half_depth_mm - reach, -build.half_width_mm - reach])
    high = np.array([build.height_mm + 40, *(-low[1:])])
    z, y, x = (
        np.arange(a, b + STEP_MM, STEP_MM, dtype=np.float32) for a, b in zip(low, high, strict=True)
    )
    return z[:, None, None], y[None, :, None], x[None, None, :], low


def _smooth_min(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    # A minimum whose crease is rounded off.
    mix = np.clip(0.5 + 0.5 * (b - a) / round_mm, 0, 1)
    return b * (1 - mix) + a * mix - round_mm * mix * (1 - mix)


def _cage(build: Build, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # A superellipse that closes over the apices; wider below, flat at the back beside the spine.
    height = np.clip(z / build.height_mm, -0.5, 1.2)
    width = build.half_width_mm * (1.0 - 0.22 * np.clip(height - 0.25, 0, 1) ** 1.5)
    depth = build.half_depth_mm * (1.0 - 0.12 * np.clip(height - 0.3, 0, 1))
    flat = np.abs(x / width) ** 2.3 + np.abs((y - 4 * height) / depth) ** 2.3
    dome = np.clip((height - 0.45) / 0.55, 0, None) ** 2.4
    return (1 - (flat + dome) ** 0.5) * build.half_depth_mm


def _heart(build: Build, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    size = build.heart * build.half_width_mm / 122
    dz, dy, dx = z - 0.30 * build.height_mm, y + 0.30 * build.half_depth_mm, x - 20
    # The axis points to the left, to the front and down.
    along = 0.80 * dx - 0.35 * dy - 0.48 * dz
    rest = np.sqrt(np.maximum(dx**2 + dy**2 + dz**2 - along**2, 0))
    taper = 48 - 0.14 * along
    ventricles = 1 - np.sqrt((along / (66 * size)) ** 2 + (rest / (taper * size)) ** 2)
    atria = 1 - np.sqrt(((dz - 22) / 38) ** 2 + ((dy - 20) / 32) ** 2 + ((dx + 18) / 46) ** 2)
    return np.maximum(ventricles * 48 * size, atria * 36)


def _mediastinum(build: Build, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    height, depth = z / build.height_mm, y / build.half_depth_mm
    behind = spine_y_mm(build)
    # Broad at the great vessels, a thin septum where the lungs nearly touch in front.
    half = 20 + 8 * np.exp(-(((height - 0.72) / 0.1) ** 2)) + 45 * np.clip(height - 0.8, 0, 1)
    half = half - 15 * np.exp(-(((depth + 0.75) / 0.28) ** 2)) * np.clip(1.2 - height, 0, 1)
    # The lungs reach behind the great vessels towards the spine, then give way to it.
    half = half - 7 * np.exp(-(((y - behind + 24) / 13) ** 2))
    half = half + 16 * np.clip((y - behind - 12) / 26, 0, 1)
    slab = half - np.abs(x - 2)
    spine = 21 - np.hypot(x, y - behind)
    aorta = 14 - np.hypot(x - 24, y - behind + 20) + 0 * z
    arch = 23 - np.sqrt((z - 0.70 * build.height_mm) ** 2 + (x - 16) ** 2 + (y / 1.7) ** 2)
    hila = 13 - np.sqrt(
        ((z - 0.50 * build.height_mm) / 1.7) ** 2 + (y - 4) ** 2 + (np.abs(x) - 24) ** 2
    )
    vessels = _smooth_max(_smooth_max(aorta, arch, 6), hila, 6)
    return _smooth_max(_smooth_max(slab, spine, 6), vessels, 5)


def _smooth_max(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    return -_smooth_min(-a, -b, round_mm)


def _diaphragm(build: Build, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Height of the lungs' floor; the left side is lower, the sulcus behind the deepest.
    right = build.dome_mm * np.exp(-(((x + 62) / 58) ** 2) - ((y + 8) / 62) ** 2)
    left = (build.dome_mm - 12) * np.exp(-(((x - 62) / 56) ** 2) - ((y + 4) / 60) ** 2)
    slope = -0.25 * (y - build.half_depth_mm)
    return right + left + slope * 0.5


def _gas(build: Build, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Under the left diaphragm; in front, for patients lie on their back.
    top = float(_diaphragm(build, np.float32(-22), np.float32(58)))
    around = np.sqrt((z - top + 34) ** 2 + ((y + 22) * 1.25) ** 2 + ((x - 58) * 0.8) ** 2)
    return build.gas_mm - around if build.gas_mm else -100 + 0 * around


def _outline(
    build: Build, z: np.ndarray, y: np.ndarray, x: np.ndarray, thickness_mm: float
) -> np.ndarray:
    height = np.clip(z / build.height_mm, 0, 1.2)
    shoulders = 26 * np.clip(height - 0.6, 0, 0.6) / 0.4
    width = build.half_width_mm + 10 + thickness_mm + shoulders
    depth = build.half_depth_mm + 12 + thickness_mm * 0.85 - 10 * np.clip(height - 0.6, 0, 0.6)
    # The back is a little hollow along the spine.
    hollow = 9 * np.exp(-((x / 22) ** 2)) * (y > 0)
    flat = np.abs(x / width) ** 2.5 + np.abs((y - 4 - 4 * height + hollow * 0.6) / depth) ** 2.5
    return (1 - flat**0.4) * depth


def _fissures(build: Build, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Oblique ones on both sides, a horizontal one in front on the right.
    middle = 0.50 * build.height_mm
    oblique = (z - middle) * 0.64 - (y + 2) * 0.77 + 0.0012 * (np.abs(x) - 70) ** 2
    horizontal = z - middle - 8 + 0.0015 * (y + 30) ** 2
    is_front_right = (x < 0) & (oblique > 0)
    nearest = np.where(np.abs(horizontal) < np.abs(oblique), horizontal, oblique)
    return np.where(is_front_right, nearest, oblique)


def _parenchyma(
    build: Build, rng: np.random.Generator, y: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    # Gravity: patients lie on their back. The last millimetres are the densest.
    depth = y / build.half_depth_mm
    gravity = build.gradient_hu * (depth / 2 + 0.25 * np.clip(depth, 0, 1) ** 3)
    uneven = smooth_noise(rng, shape, 4, 10.0) + smooth_noise(rng, shape, 1.2, 9.0)
    holes = smooth_noise(rng, shape, 1.5, 1.0)
    lost = -55 * build.emphysema * np.clip(holes - 0.6, 0, 1.5)
    return build.lung_hu + gravity + uneven + lost
