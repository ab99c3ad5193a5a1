"""Random surfaces by their spectra: brush strokes, orange peel, blasted grain, flakes."""

from __future__ import annotations

import numpy as np
from scipy import fft

from kits.defect.data.render.product import Surface

Shape = tuple[int, int]


def synthesise(
    surface: Surface, shape: Shape, mm_per_px: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and grain of one part.

    Args:
        surface: what it is made like.
        shape: (H, W); sizes with small prime factors are quick.
        mm_per_px: size of a pixel.
        rng: another state is another part.
    Returns:
        (H, W) float32 slope along `surface.axis` with rms 1, and (H, W) float32 grain with rms 1.
    """
    # Cycles per mm.
    fx = (fft.rfftfreq(shape[1]) / mm_per_px).astype(np.float32)[None, :]
    fy = (fft.fftfreq(shape[0]) / mm_per_px).astype(np.float32)[:, None]
    if surface.kind == "brushed":
        slopes = _field(_strokes(surface, fx, fy), shape, rng)
        # A few strokes are much deeper than the rest.
        slopes += np.float32(0.22) * slopes * np.abs(slopes)
        grain = slopes * np.float32(0.5) + _white(shape, rng)
    else:
        slopes = _field(_bumps(surface, fx, fy), shape, rng)
        grain = _white(shape, rng)
        if surface.kind == "textured":
            # Valleys are darker: shade the grain by what lies a bit towards the light.
            grain += np.roll(slopes, (1, 1), (0, 1))
    return _scaled(slopes), _scaled(grain)


def _strokes(surface: Surface, fx: np.ndarray, fy: np.ndarray) -> np.ndarray:
    """Amplitude of brush strokes: long in one direction, of all widths from `fine_mm` in the other.

    Strokes of slightly different directions widen the spectrum in proportion to the frequency.
    """
    across = np.abs(fx * surface.axis[0] + fy * surface.axis[1])
    along = fx * -surface.axis[1] + fy * surface.axis[0]
    width = np.float32(1 / surface.long_mm) + np.float32(surface.stroke_angle) * across
    low = across * np.float32(3.0)
    kept = low / (1 + low) / (1 + across * np.float32(surface.fine_mm))
    # A mixture of long and of shorter strokes.
    return kept / np.sqrt(width) / (1 + np.square(along / width))


def _bumps(surface: Surface, fx: np.ndarray, fy: np.ndarray) -> np.ndarray:
    """Amplitude of slopes towards the light of bumps between two sizes."""
    squared = fx * fx + fy * fy
    towards = np.abs(fx * np.float32(surface.axis[0]) + fy * np.float32(surface.axis[1]))
    small = np.exp(np.float32(-2 * surface.fine_mm**2) * squared)
    return towards * small / (1 + np.float32(surface.long_mm**2) * squared) ** np.float32(0.75)


def _field(amplitude: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian field whose spectrum has an amplitude."""
    noise = rng.standard_normal((*amplitude.shape, 2), np.float32)
    spectrum = noise.view(np.complex64)[..., 0]
    spectrum *= amplitude
    return fft.irfft2(spectrum, shape, overwrite_x=True)


def _white(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _scaled(values: np.ndarray) -> np.ndarray:
    values -= values.mean()
    values /= max(float(values.std()), 1e-12)
    return values
