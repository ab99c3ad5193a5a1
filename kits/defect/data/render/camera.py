"""Lens and sensor: from brightness on the part to numbers of 8 bits."""

from __future__ import annotations

import numpy as np
from scipy import fft

from kits.defect.mtf import KERNEL_RADIUS_PX, kernel, transfer
from kits.defect.optics_config import OpticsConfig


def blur(
    optics: OpticsConfig, brightness: np.ndarray, shifts_px: tuple[tuple[float, float], ...]
) -> list[np.ndarray]:
    """What lens, motion and pixels make of a scene, once for each shift.

    Args:
        optics: the camera.
        brightness: (H, W) float32; its edges wrap around.
        shifts_px: how far the scene moves right and down; (0, 0) leaves it.
    Returns:
        (H, W) float32 each.
    """
    shape = (brightness.shape[0], brightness.shape[1])
    spectrum = fft.rfft2(brightness)
    spectrum *= transfer(optics, shape)
    images = []
    for right, down in shifts_px:
        moved = spectrum
        if right or down:
            fx, fy = fft.rfftfreq(shape[1])[None, :], fft.fftfreq(shape[0])[:, None]
            turn_x = np.exp(-2j * np.pi * right * fx).astype(np.complex64)
            moved = spectrum * turn_x * np.exp(-2j * np.pi * down * fy).astype(np.complex64)
        images.append(fft.irfft2(moved, shape))
    return images


def blur_window(optics: OpticsConfig, change: np.ndarray) -> np.ndarray:
    """What lens and motion make of a small window that is zero beyond its edge.

    Args:
        optics: the camera.
        change: (h, w) float32, averaged over pixels already.
    Returns:
        (h + 2 r, w + 2 r) float32, r = KERNEL_RADIUS_PX: the blur reaches beyond the window.
    """
    weights = kernel(optics)
    full = tuple(size + 2 * KERNEL_RADIUS_PX for size in change.shape)
    shape = tuple(fft.next_fast_len(size, real=True) for size in full)
    spectrum = fft.rfft2(change, shape)
    spectrum *= fft.rfft2(weights, shape)
    return fft.irfft2(spectrum, shape)[: full[0], : full[1]]


def expose(optics: OpticsConfig, brightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Count electrons and read them out.

    Args:
        optics: the camera.
        brightness: (H, W) float32, shares of the full well.
        rng: of shot and read noise.
    Returns:
        (H, W) uint8; 255 is the full well.
    """
    noise = rng.standard_normal(brightness.shape, np.float32)
    noise *= noise_of(optics, brightness)
    noise += brightness
    noise *= 255
    noise += 0.5
    return np.clip(noise, 0, 255.5, out=noise).astype(np.uint8)


def noise_of(optics: OpticsConfig, brightness: np.ndarray) -> np.ndarray:
    """Standard deviation of shot and read noise, in shares of the full well."""
    variance = np.maximum(brightness, 0) * np.float32(1 / optics.full_well_e)
    variance += np.float32((optics.read_noise_e / optics.full_well_e) ** 2)
    return np.sqrt(variance, out=variance)
