"""A training sample from a crop: shifted, flipped, turned, scaled, with another scanner's noise.

Dimensions: d, h, w of the crop; D, H, W of the sample. All chance comes from the generator given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from kits.medical.sampling import AIR_HU, FULL, UNKNOWN, Crop, end_in_air
from kits.medical.sampling_config import SamplingConfig

STRIDE = 2  # voxels for a cell of heat and texture
# A centre's peak: this share of the nodule's diameter, and some cells at least.
PEAK_SHARE, SMALLEST_PEAK = 0.2, 0.8
LABEL_ABOVE = 0.6  # of a peak: where the texture is asked for
NEAR_ABOVE = 0.02  # of a peak: where in a patch absence is known
FLIPS = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))


@dataclass(frozen=True)
class Sample:
    """One input with its targets."""

    image: np.ndarray  # (D, H, W) float32 HU
    votes: np.ndarray  # (D, H, W) float32 0 to 1
    weight: np.ndarray  # (D, H, W) float32: 0 where nothing is known
    heat: np.ndarray  # (D/2, H/2, W/2) float32, 1 at each centre
    heat_weight: np.ndarray  # (D/2, H/2, W/2) float32
    texture: np.ndarray  # (D/2, H/2, W/2) int8, -1 where nothing is asked


@dataclass(frozen=True)
class _Place:
    """A sample's voxel x lies at centre + matrix @ (x - middle) of the crop."""

    centre: np.ndarray  # (3,)
    matrix: np.ndarray  # (3, 3)

    def inverse(self, points: np.ndarray, middle: np.ndarray) -> np.ndarray:
        """(k, 3) points of the crop -> of the sample."""
        return (points - self.centre) @ np.linalg.inv(self.matrix).T + middle


def training_sample(crop: Crop, cfg: SamplingConfig, rng: np.random.Generator) -> Sample:
    """A varied sample of a crop."""
    size = np.array(cfg.patch)
    image, votes, place = _take(crop, cfg, rng)
    points = place.inverse(crop.centres.astype(np.float64), (size - 1) / 2)
    flips = FLIPS[rng.integers(len(FLIPS))]
    for axis in flips:
        image, votes = np.flip(image, axis), np.flip(votes, axis)
        points[:, axis] = size[axis] - 1 - points[:, axis]
    if size[1] == size[2] and rng.random() < 0.5:
        image, votes = image.swapaxes(1, 2), votes.swapaxes(1, 2)
        points = points[:, [0, 2, 1]]
    image = _other_scanner(np.ascontiguousarray(image), cfg, rng)
    scale = float(np.abs(np.linalg.det(place.matrix)) ** (1 / 3))
    return _targets(crop, image, np.ascontiguousarray(votes), points, scale)


def plain_sample(crop: Crop, cfg: SamplingConfig) -> Sample:
    """The middle of a crop as it is; a nodule's centre is in the sample's."""
    start = (np.array(crop.image.shape) - cfg.patch) // 2
    part = tuple(slice(int(a), int(a + n)) for a, n in zip(start, cfg.patch, strict=True))
    image = crop.image[part].astype(np.float32)
    points = crop.centres.astype(np.float64) - start
    return _targets(crop, image, crop.votes[part], points, 1.0)


def _take(
    crop: Crop, cfg: SamplingConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, _Place]:
    """The sample's voxels before flips; between voxels for a share of the samples."""
    size, inside = np.array(cfg.patch), np.array(crop.image.shape)
    # A crop is centred at its nodule, or at nothing.
    wanted = (inside - 1) / 2 + rng.uniform(-cfg.jitter, cfg.jitter, 3) * size
    if crop.is_patch:
        # Of more slices than a sample has, those at the ends are seen too.
        known = int((crop.votes != UNKNOWN).any((1, 2)).sum())
        wanted[0] += rng.uniform(-0.5, 0.5) * max(0, known - size[0])
    if rng.random() >= cfg.affine:
        start = np.clip(np.round(wanted - (size - 1) / 2), 0, inside - size).astype(np.int64)
        part = tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
        place = _Place(start + (size - 1) / 2, np.eye(3))
        return crop.image[part].astype(np.float32), crop.votes[part], place
    angle = np.deg2rad(rng.uniform(-1, 1) * cfg.max_turn_degrees)
    widest = np.log(cfg.max_scale)
    in_plane, between = np.exp(rng.uniform(-widest, widest)), np.exp(rng.uniform(-widest, widest))
    cosine, sine = np.cos(angle) * in_plane, np.sin(angle) * in_plane
    # Turned as millimetres are: the pixels of a slice are square.
    matrix = np.array([[between, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    place = _Place(wanted, matrix)
    image, known, votes = _resample(crop, place, size)
    votes = np.where(known > 0.5, np.round(votes), UNKNOWN).astype(np.uint8)
    return image, votes, place


def _resample(crop: Crop, place: _Place, size: np.ndarray) -> np.ndarray:
    """(3, D, H, W) float32 image, what is known, votes; linear, the crop's edge beyond it."""
    is_known = crop.votes != UNKNOWN
    channels = np.stack([crop.image, is_known, np.where(is_known, crop.votes, 0)])
    given = torch.from_numpy(channels.astype(np.float32))[None]
    # torch counts axes backwards, from -1 at the first voxel's centre to 1 at the last one's.
    half_in = (np.array(crop.image.shape) - 1) / 2
    half_out = (size - 1) / 2
    matrix = (place.matrix * half_out / half_in[:, None])[::-1, ::-1]
    shift = ((place.centre - half_in) / half_in)[::-1]
    theta = torch.from_numpy(np.column_stack([matrix, shift]).astype(np.float32))[None]
    shape = [1, 3, *size.tolist()]
    grid = functional.affine_grid(theta, shape, align_corners=True)
    found = functional.grid_sample(given, grid, padding_mode="border", align_corners=True)
    return found[0].numpy()


def _other_scanner(image: np.ndarray, cfg: SamplingConfig, rng: np.random.Generator) -> np.ndarray:
    """Another dose, kernel and calibration."""
    gain = 1 + np.float32(rng.uniform(-cfg.max_gain, cfg.max_gain))
    shift = np.float32(rng.uniform(-cfg.max_shift_hu, cfg.max_shift_hu))
    image = (image - AIR_HU) * gain + (AIR_HU + shift)
    if rng.random() < cfg.blur:
        image = ndimage.gaussian_filter(image, (0, *[rng.uniform(0.3, 0.8)] * 2))
    noise_hu = cfg.max_noise_hu * rng.random() ** 2
    return image + np.float32(noise_hu) * rng.standard_normal(image.shape, dtype=np.float32)


def _targets(
    crop: Crop, image: np.ndarray, votes: np.ndarray, points: np.ndarray, scale: float
) -> Sample:
    """Heat and texture from the centres; `scale` is the crop's voxels for one of the sample."""
    known = votes != UNKNOWN
    if crop.is_patch:
        image = end_in_air(image, votes)
    shape = tuple(size // STRIDE for size in image.shape)
    heat = np.zeros(shape, np.float32)
    doubt = np.zeros(shape, np.float32)
    texture = np.full(shape, -1, np.int8)
    for k, point in enumerate(points):
        # A cell covers two voxels.
        cell = (point + 0.5) / STRIDE - 0.5
        widths = [
            max(SMALLEST_PEAK, PEAK_SHARE * crop.diameters_mm[k] / (STRIDE * step * scale))
            for step in crop.spacing_mm
        ]
        peak = _peak(shape, cell, widths)
        if peak is None:
            continue
        if not crop.is_certain[k]:
            np.maximum(doubt, peak, out=doubt)
            continue
        np.maximum(heat, peak, out=heat)
        texture[peak > LABEL_ABOVE] = crop.textures[k]
    is_asked = heat > NEAR_ABOVE if crop.is_patch else doubt < NEAR_ABOVE
    return Sample(
        image=image,
        votes=np.where(known, votes, 0).astype(np.float32) / FULL,
        weight=known.astype(np.float32),
        heat=heat,
        heat_weight=(is_asked | (heat == 1)).astype(np.float32),
        texture=texture,
    )


def _peak(shape: tuple[int, ...], cell: np.ndarray, widths: list[float]) -> np.ndarray | None:
    """A Gaussian that is exactly 1 in the cell of the centre; None where that lies outside."""
    nearest = np.round(cell).astype(np.int64)
    if np.any(nearest < 0) or np.any(nearest >= shape):
        return None
    lines = [
        np.exp(-0.5 * ((np.arange(size) - place) / width) ** 2).astype(np.float32)
        for size, place, width in zip(shape, cell, widths, strict=True)
    ]
    peak: np.ndarray = lines[0][:, None, None] * lines[1][:, None] * lines[2]
    peak[tuple(nearest)] = 1
    return peak
