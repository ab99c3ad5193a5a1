"""How much of a pattern's contrast a camera keeps, by its frequency: the modulation transfer.

Frequencies are cycles per pixel. Lens: diffraction of a round aperture times the disc of defocus.
Motion: the path during the exposure, along x. Vibration: a Gaussian. Pixel: its square.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft, special

from kits.defect.optics_config import OpticsConfig

# Half the width of the kernel that stands for lens, motion and vibration in small windows.
KERNEL_RADIUS_PX = 8


def magnification(optics: OpticsConfig) -> float:
    """Size on the sensor over size on the part."""
    return optics.pixel_um / (optics.mm_per_px * 1000)


def diffraction_cutoff(optics: OpticsConfig) -> float:
    """Cycles per pixel beyond which a perfect lens shows nothing."""
    working_f_number = optics.f_number * (1 + magnification(optics))
    return optics.pixel_um / (optics.wavelength_nm / 1000 * working_f_number)


def defocus_diameter_px(optics: OpticsConfig) -> float:
    """Diameter of the disc that a point of the surface becomes out of focus."""
    m = magnification(optics)
    return optics.defocus_mm / optics.mm_per_px * m / (optics.f_number * (1 + m))


def motion_px(optics: OpticsConfig) -> float:
    """Path of the part while the shutter is open."""
    return optics.speed_mm_per_s * optics.exposure_us / 1e6 / optics.mm_per_px


def lens_mtf(optics: OpticsConfig, frequency: np.ndarray) -> np.ndarray:
    """Diffraction times defocus.

    Source: Goodman, Introduction to Fourier Optics, eq. 6-31; the disc's transform 2 J1(x) / x.
    """
    relative = np.clip(frequency / diffraction_cutoff(optics), 0, 1)
    kept = 2 / np.pi * (np.arccos(relative) - relative * np.sqrt(1 - relative**2))
    x = np.pi * defocus_diameter_px(optics) * frequency
    disc = np.where(x > 1e-4, 2 * special.j1(x) / np.maximum(x, 1e-4), 1.0)
    return kept * disc


def movement_mtf(optics: OpticsConfig, fx: np.ndarray, fy: np.ndarray) -> np.ndarray:
    """Motion times vibration."""
    sigma_px = optics.vibration_um / 1000 / optics.mm_per_px
    shaken = np.exp(-2 * (np.pi * sigma_px) ** 2 * (fx**2 + fy**2))
    return np.sinc(fx * motion_px(optics)) * shaken


def camera_mtf(optics: OpticsConfig, fx: np.ndarray, fy: np.ndarray) -> np.ndarray:
    """Everything between the part and the pixels' values."""
    return scene_mtf(optics, fx, fy) * np.sinc(fx) * np.sinc(fy)


def scene_mtf(optics: OpticsConfig, fx: np.ndarray, fy: np.ndarray) -> np.ndarray:
    """Lens and movement alone: of what was already averaged over each pixel."""
    return lens_mtf(optics, np.hypot(fx, fy)) * movement_mtf(optics, fx, fy)


def kernel(optics: OpticsConfig) -> np.ndarray:
    """Lens and movement as (2 r + 1, 2 r + 1) float32 weights that add up to 1."""
    return _kernel(_key(optics))


def transfer(optics: OpticsConfig, shape: tuple[int, int]) -> np.ndarray:
    """`camera_mtf` for `scipy.fft.rfft2` of an image of a shape, float32."""
    return _transfer(_key(optics), shape)


def _key(optics: OpticsConfig) -> tuple[float, ...]:
    return (
        *(optics.fov_mm, optics.sensor_width_px, optics.pixel_um, optics.f_number),
        *(optics.wavelength_nm, optics.defocus_mm, optics.speed_mm_per_s, optics.exposure_us),
        optics.vibration_um,
    )


def _of(key: tuple[float, ...]) -> OpticsConfig:
    names = (
        *("fov_mm", "sensor_width_px", "pixel_um", "f_number"),
        *("wavelength_nm", "defocus_mm", "speed_mm_per_s", "exposure_us"),
        "vibration_um",
    )
    return OpticsConfig(**dict(zip(names, key, strict=True)))  # type: ignore[arg-type]


@lru_cache(maxsize=8)
def _kernel(key: tuple[float, ...]) -> np.ndarray:
    size = 8 * KERNEL_RADIUS_PX
    fx, fy = fft.rfftfreq(size)[None, :], fft.fftfreq(size)[:, None]
    spread = fft.fftshift(fft.irfft2(scene_mtf(_of(key), fx, fy), (size, size)))
    middle = slice(size // 2 - KERNEL_RADIUS_PX, size // 2 + KERNEL_RADIUS_PX + 1)
    weights = spread[middle, middle]
    return (weights / weights.sum()).astype(np.float32)


@lru_cache(maxsize=2)
def _transfer(key: tuple[float, ...], shape: tuple[int, int]) -> np.ndarray:
    fx, fy = fft.rfftfreq(shape[1])[None, :], fft.fftfreq(shape[0])[:, None]
    return camera_mtf(_of(key), fx, fy).astype(np.float32)
