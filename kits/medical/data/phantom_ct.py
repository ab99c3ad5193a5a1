"""From a simulated chest to a CT of it: slices with a thickness, a kernel, noise.

Dimensions: D slices, H rows, W columns. Axes are positions (z, y, x) in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter1d

from kits.medical.data.phantom_anatomy import Anatomy
from kits.medical.data.phantom_field import Axes, Field, blend, coverage
from kits.medical.data.phantom_nodules import PlacedNodule
from kits.medical.data.phantom_spine import draw_spine
from kits.medical.data.phantom_thorax import Thorax
from kits.medical.data.phantom_tubes import Tubes, paint

AIR_HU, FAT_HU, MUSCLE_HU, HEART_HU, LIVER_HU = -1000.0, -98.0, 52.0, 42.0, 58.0
SHELL_HU, MARROW_HU, CARTILAGE_HU = 520.0, 190.0, 105.0
FINEST_MM = 1.0  # the chest is looked at in layers no thicker than this
SLICES_AT_ONCE = 40
KERNELS = ("soft", "sharp")


@dataclass(frozen=True)
class Acquisition:
    """How the scanner looks."""

    spacing_mm: tuple[float, float, float]
    thickness_mm: float  # full width at half maximum of the slice profile
    kernel: str
    sigma_mm: float  # of the in-plane blur
    edge: float  # enhancement of edges
    noise_hu: float  # standard deviation in the middle of the body
    streaks: float  # how much more noise along x

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        *,
        pixel_mm: float | None = None,
        slice_mm: float | None = None,
    ) -> Acquisition:
        """A protocol as hospitals use them; spacings may be given."""
        pixel = float(np.round(rng.uniform(0.55, 0.88), 4))
        step = float(rng.choice([0.625, 0.8, 1.0, 1.25, 1.25, 1.5, 2.0, 2.5, 3.0]))
        pixel, step = pixel_mm or pixel, slice_mm or step
        overlap = float(rng.choice([1.0, 1.25, 1.5], p=[0.6, 0.25, 0.15]))
        is_sharp = bool(rng.random() < 0.45)
        # Thin slices and sharp kernels cost photons; dose makes up for a part of it.
        dose = rng.uniform(0.6, 1.5)
        noise = (34.0 if is_sharp else 15.0) / dose * (1.25 / step) ** 0.4
        return cls(
            spacing_mm=(step, pixel, pixel),
            thickness_mm=step * overlap,
            kernel=KERNELS[is_sharp],
            sigma_mm=float(rng.uniform(0.30, 0.38) if is_sharp else rng.uniform(0.48, 0.62)),
            edge=float(rng.uniform(0.4, 0.9) if is_sharp else 0),
            noise_hu=float(noise),
            streaks=float(rng.uniform(0, 1.5)),
        )


def scan(
    thorax: Thorax,
    anatomy: Anatomy,
    nodules: tuple[PlacedNodule, ...],
    axes: Axes,
    look: Acquisition,
    seed: tuple[int, ...],
) -> np.ndarray:
    """(D, H, W) int16: the CT."""
    hu = np.empty([len(axis) for axis in axes], np.int16)
    for start in range(0, len(axes[0]), SLICES_AT_ONCE):
        slices = axes[0][start : start + SLICES_AT_ONCE]
        image = _slices(thorax, anatomy, nodules, (slices, *axes[1:]), look)
        near = (slices, *axes[1:])
        image += _noise(look, near, thorax.body, seed, start)
        np.clip(np.rint(image, out=image), -1024, 3071, out=image)
        hu[start : start + len(slices)] = image
    return hu


def chest_hu(
    thorax: Thorax,
    anatomy: Anatomy,
    nodules: tuple[PlacedNodule, ...],
    axes: Axes,
) -> np.ndarray:
    """(D, H, W) float32: tissue at every voxel, as no scanner sees it."""
    edge_mm = float(np.mean([axis[1] - axis[0] for axis in axes[1:]]))
    hu = np.full([len(axis) for axis in axes], AIR_HU, np.float32)
    share = np.zeros_like(hu)
    blend(hu, FAT_HU, coverage(thorax.body.on(axes), edge_mm))
    texture = thorax.wall_texture.on(axes)
    muscle = coverage(thorax.muscle.on(axes), 2.0)
    muscle *= np.clip(1.6 + 1.1 * texture, 0.15, 1)
    blend(hu, MUSCLE_HU, muscle)
    blend(hu, FAT_HU, coverage(thorax.cage.on(axes), 1.5))
    blend(hu, LIVER_HU, coverage(thorax.abdomen.on(axes), 2.0))
    blend(hu, max(HEART_HU, thorax.build.blood_hu * 0.9), coverage(thorax.heart.on(axes), 2.0))
    _paint_all(hu, share, axes, anatomy.cartilage, CARTILAGE_HU, edge_mm)
    _paint_all(hu, share, axes, anatomy.ribs, SHELL_HU, edge_mm)
    marrow = anatomy.ribs.resized(lambda radius: radius - 1.5)
    _paint_all(hu, share, axes, marrow, MARROW_HU, edge_mm)
    draw_spine(hu, axes, thorax)
    _paint_all(hu, share, axes, anatomy.blood, thorax.build.blood_hu, edge_mm)
    lung = coverage(thorax.lungs.on(axes), edge_mm)
    parenchyma = thorax.parenchyma_hu.on(axes)
    parenchyma += 260 * coverage(0.35 - np.abs(thorax.fissure.on(axes)), edge_mm)
    blend(hu, parenchyma, lung)
    _paint_all(hu, share, axes, anatomy.soft, 35.0, edge_mm)
    vessel_hu = 0.9 * thorax.build.blood_hu
    _paint_all(hu, share, axes, anatomy.lung_vessels, vessel_hu, edge_mm)
    _paint_all(hu, share, axes, anatomy.airway_walls, 20.0, edge_mm)
    _paint_all(hu, share, axes, anatomy.airways, AIR_HU, edge_mm)
    for nodule in nodules:
        nodule.draw(hu, axes, edge_mm)
    return hu


def _paint_all(
    hu: np.ndarray, share: np.ndarray, axes: Axes, tubes: Tubes, value: float, edge_mm: float
) -> None:
    share[...] = 0
    paint(share, axes, tubes, edge_mm)
    blend(hu, value, share)


def _slices(
    thorax: Thorax,
    anatomy: Anatomy,
    nodules: tuple[PlacedNodule, ...],
    axes: Axes,
    look: Acquisition,
) -> np.ndarray:
    """Thick, blurred slices of the chest."""
    step = look.spacing_mm[0]
    layers = int(np.ceil(step / FINEST_MM))
    fine_mm = step / layers
    sigma = look.thickness_mm / 2.355
    reach = int(np.ceil(2.2 * sigma / fine_mm))
    count = (len(axes[0]) - 1) * layers + 1 + 2 * reach
    heights = axes[0][0] + (np.arange(count) - reach) * fine_mm
    fine = chest_hu(thorax, anatomy, nodules, (heights, *axes[1:]))
    offset = np.arange(-reach, reach + 1)
    profile = np.exp(-0.5 * (offset * fine_mm / sigma) ** 2)
    profile = (profile / profile.sum()).astype(np.float32)
    image = np.zeros((len(axes[0]), *fine.shape[1:]), np.float32)
    for position, weight in enumerate(profile):
        image += weight * fine[position : position + (len(image) - 1) * layers + 1 : layers]
    return _reconstruct(image, look)


def _reconstruct(image: np.ndarray, look: Acquisition) -> np.ndarray:
    """Blur in the plane; sharp kernels enhance edges."""
    for axis in (1, 2):
        sigma = look.sigma_mm / look.spacing_mm[axis]
        image = gaussian_filter1d(image, sigma, axis=axis, mode="nearest", truncate=3.0)
    if look.edge:
        wide = image
        for axis in (1, 2):
            sigma = 1.1 / look.spacing_mm[axis]
            wide = gaussian_filter1d(wide, sigma, axis=axis, mode="nearest", truncate=2.5)
        image += look.edge * (image - wide)
    return image


def _noise(
    look: Acquisition, axes: Axes, body: Field, seed: tuple[int, ...], start: int
) -> np.ndarray:
    """Noise of filtered back-projection: little at low frequencies, more deep in the body."""
    shape = (len(axes[1]), len(axes[2]))
    padded = [fft.next_fast_len(size, real=True) for size in shape]
    weights = _noise_spectrum(look, padded)
    noise = np.empty((len(axes[0]) + 1, *shape), np.float32)
    for number in range(len(noise)):
        # One generator for each slice: slabs of any size give the same noise.
        rng = np.random.default_rng([*seed, start + number])
        white = rng.standard_normal(padded, np.float32)
        shaped = fft.irfft2(fft.rfft2(white) * weights, padded)
        noise[number] = shaped[: shape[0], : shape[1]]
    # Slices thicker than their distance share photons with the next.
    shared = float(np.clip(look.thickness_mm / look.spacing_mm[0] - 1, 0, 0.8))
    mixed = (noise[:-1] + shared * noise[1:]) / np.float32(np.hypot(1, shared))
    depth = np.clip(body.on(axes), 0, 110)
    mixed *= look.noise_hu * (0.55 + 0.45 * depth / 80)
    return mixed


def _noise_spectrum(look: Acquisition, shape: list[int]) -> np.ndarray:
    """Weights of white noise's frequencies, for a standard deviation of 1."""
    fy = fft.fftfreq(shape[0], look.spacing_mm[1])[:, None]
    fx = fft.rfftfreq(shape[1], look.spacing_mm[2])[None, :]
    f = np.hypot(fy, fx)
    # A ramp, the kernel's own blur, and its enhancement of edges.
    blur = np.exp(-2 * (np.pi * look.sigma_mm * f) ** 2)
    edges = 1 + look.edge * (1 - np.exp(-2 * (np.pi * 1.1 * f) ** 2))
    across = 1 + look.streaks * fy**2 / np.maximum(f**2, 1e-9)
    power = (f + 0.01) * (blur * edges) ** 2 * across
    weights = np.sqrt(power)
    double = np.full(weights.shape[1], 2.0)
    double[0] = 1
    if shape[1] % 2 == 0:
        double[-1] = 1
    total = float((power * double).sum()) / np.prod(shape)
    return (weights / np.sqrt(total)).astype(np.float32)
