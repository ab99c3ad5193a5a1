"""How a simulated scanner looks: its protocol, and the noise of filtered back-projection.

Dimensions: D slices, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

KERNELS = ("soft", "sharp")
EDGE_MM = 1.1  # what sharp kernels take for the surroundings of an edge
NUM_TILES = 16


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


class Noise:
    """Slices of noise: little at low frequencies, more deep in the body.

    A few tiles have the spectrum; a slice is a tile, shifted and mirrored at random.
    """

    def __init__(
        self, look: Acquisition, shape: tuple[int, int, int], seed: tuple[int, ...]
    ) -> None:
        self._look, self._seed, self._shape = look, seed, shape[1:]
        padded = [fft.next_fast_len(size, real=True) for size in shape[1:]]
        weights = _spectrum(look, padded)
        rng = np.random.default_rng([*seed, 0])
        white = rng.standard_normal((NUM_TILES, *padded), np.float32)
        self._tiles = fft.irfft2(fft.rfft2(white) * weights, padded)

    def add(self, image: np.ndarray, start: int, body: np.ndarray) -> None:
        """Add noise to slices, in place.

        Args:
            image: (D, H, W) the slices from number `start` on.
            start: number of the first.
            body: (D, H, W) depth under the skin in mm; photons are lost on the way.
        """
        look = self._look
        # Slices thicker than their distance share photons with the next.
        shared = float(np.clip(look.thickness_mm / look.spacing_mm[0] - 1, 0, 0.8))
        scale = np.clip(body, 0, 110, out=body)
        scale *= np.float32(look.noise_hu * 0.45 / 80 / np.hypot(1, shared))
        scale += np.float32(look.noise_hu * 0.55 / np.hypot(1, shared))
        following = self._slice(start)
        for number in range(len(image)):
            own, following = following, self._slice(start + number + 1)
            mixed = own + np.float32(shared) * following if shared else own
            image[number] += mixed * scale[number]

    def _slice(self, number: int) -> np.ndarray:
        # One generator for each slice: asked for alone or with others, it is the same.
        rng = np.random.default_rng([*self._seed, 1, number])
        tile = self._tiles[rng.integers(NUM_TILES)][:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        shift = rng.integers(0, tile.shape).tolist()
        rows, columns = self._shape
        return np.roll(tile, shift, (0, 1))[:rows, :columns]


def _spectrum(look: Acquisition, shape: list[int]) -> np.ndarray:
    """Weights of white noise's frequencies, for a standard deviation of 1."""
    fy = fft.fftfreq(shape[0], look.spacing_mm[1])[:, None]
    fx = fft.rfftfreq(shape[1], look.spacing_mm[2])[None, :]
    f = np.hypot(fy, fx)
    # A ramp, the kernel's own blur, and its enhancement of edges.
    blur = np.exp(-2 * (np.pi * look.sigma_mm * f) ** 2)
    edges = 1 + look.edge * (1 - np.exp(-2 * (np.pi * EDGE_MM * f) ** 2))
    across = 1 + look.streaks * fy**2 / np.maximum(f**2, 1e-9)
    power = (f + 0.01) * (blur * edges) ** 2 * across
    double = np.full(power.shape[1], 2.0)
    double[0] = 1
    if shape[1] % 2 == 0:
        double[-1] = 1
    total = float((power * double).sum()) / np.prod(shape)
    return np.sqrt(power / total).astype(np.float32)
