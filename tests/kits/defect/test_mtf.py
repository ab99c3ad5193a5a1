import numpy as np
import pytest
from scipy import fft

from kits.defect import mtf
from kits.defect.optics_config import OpticsConfig

SHARP = OpticsConfig(
    f_number=0.7, wavelength_nm=200, defocus_mm=0, speed_mm_per_s=0, vibration_um=0
)


def at(optics, fx, fy=0.0):
    return float(mtf.camera_mtf(optics, np.array(fx), np.array(fy)))


def test_even_light_passes_whole():
    assert at(OpticsConfig(), 0.0) == pytest.approx(1)


def test_pixels_alone_keep_two_over_pi_at_nyquist():
    # A lens this fast takes 3 % more.
    assert at(SHARP, 0.5) == pytest.approx(2 / np.pi, rel=0.04)


def test_a_perfect_lens_passes_nothing_beyond_its_cutoff():
    optics = OpticsConfig(defocus_mm=0, speed_mm_per_s=0, vibration_um=0, f_number=16)
    # 1 / (wavelength * working f-number), 145 cycles/mm being Nyquist at 3.45 um.
    assert mtf.diffraction_cutoff(optics) == pytest.approx(3.45 / (0.55 * 16 * 1.044), rel=1e-3)
    cutoff = mtf.diffraction_cutoff(optics)
    assert mtf.lens_mtf(optics, np.array(cutoff * 1.01)) == pytest.approx(0)
    # Half of the cutoff: 2/pi (arccos 1/2 - 1/2 sqrt 3/4) = 0.391.
    assert mtf.lens_mtf(optics, np.array(cutoff / 2)) == pytest.approx(0.391, abs=1e-3)


def test_motion_is_a_box_along_x():
    moving = OpticsConfig(speed_mm_per_s=780, exposure_us=100, vibration_um=0)
    still = OpticsConfig(speed_mm_per_s=0, vibration_um=0)
    assert mtf.motion_px(moving) == pytest.approx(0.9984)
    assert at(moving, 0.5) / at(still, 0.5) == pytest.approx(np.sinc(0.4992))
    assert at(moving, 0.0, 0.5) == pytest.approx(at(still, 0.0, 0.5))


def test_defocus_takes_its_disc():
    # 20 mm out of focus: similar triangles of the lens's opening over the distance.
    optics = OpticsConfig(defocus_mm=20)
    m = mtf.magnification(optics)
    on_part_mm = 20 * m / (optics.f_number * (1 + m))
    assert mtf.defocus_diameter_px(optics) == pytest.approx(on_part_mm / optics.mm_per_px)
    zero = 1.2197 / mtf.defocus_diameter_px(optics)  # the first zero of 2 J1(x) / x
    assert mtf.lens_mtf(optics, np.array(zero)) == pytest.approx(0, abs=1e-4)


def test_the_kernel_is_the_transfer_without_pixels():
    optics = OpticsConfig()
    weights = mtf.kernel(optics)
    assert weights.sum() == pytest.approx(1)
    spectrum = np.abs(fft.rfft2(weights, (64, 64)))
    fx, fy = fft.rfftfreq(64)[None, :], fft.fftfreq(64)[:, None]
    # Of diffraction's slow decay, what lies beyond 8 pixels is cut off.
    np.testing.assert_allclose(spectrum, np.abs(mtf.scene_mtf(optics, fx, fy)), atol=0.03)
