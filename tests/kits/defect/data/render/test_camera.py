import numpy as np
import pytest

from kits.defect.data.render.camera import blur, blur_window, expose
from kits.defect.mtf import KERNEL_RADIUS_PX, camera_mtf
from kits.defect.optics_config import OpticsConfig

OPTICS = OpticsConfig()


@pytest.mark.parametrize("cycles", [2, 8, 20])
def test_a_grating_keeps_the_contrast_that_the_transfer_says(cycles):
    x = np.arange(64)
    scene = 0.5 + 0.2 * np.cos(2 * np.pi * cycles / 64 * x)
    (seen,) = blur(OPTICS, np.tile(scene, (64, 1)).astype(np.float32), ((0.0, 0.0),))
    kept = camera_mtf(OPTICS, np.array(cycles / 64), np.array(0.0))
    assert seen.std() / scene.std() == pytest.approx(kept, rel=1e-4)
    assert seen.mean() == pytest.approx(0.5, rel=1e-5)


def test_a_shift_moves_the_scene_between_pixels():
    y, x = np.mgrid[:64, :64]
    scene = np.exp(-((x - 30) ** 2 + (y - 25) ** 2) / 18).astype(np.float32)
    still, moved = blur(OPTICS, scene, ((0.0, 0.0), (0.4, -0.7)))
    for axis, shift in ((x, 0.4), (y, -0.7)):
        before, after = ((image * axis).sum() / image.sum() for image in (still, moved))
        # Diffraction's slow decay wraps around.
        assert after - before == pytest.approx(shift, abs=0.03)


def test_a_window_spreads_and_loses_nothing():
    change = np.ones((9, 20), np.float32)
    seen = blur_window(OPTICS, change)
    assert seen.shape == (9 + 2 * KERNEL_RADIUS_PX, 20 + 2 * KERNEL_RADIUS_PX)
    assert seen.sum() == pytest.approx(change.sum(), rel=1e-4)
    middle = seen[KERNEL_RADIUS_PX:-KERNEL_RADIUS_PX, KERNEL_RADIUS_PX:-KERNEL_RADIUS_PX]
    assert middle[4, 10] == pytest.approx(1, abs=0.02)
    assert seen[0].max() < 0.01


@pytest.mark.parametrize("level", [0.1, 0.45, 0.8])
def test_noise_grows_with_light_as_photons_do(level):
    pixels = expose(OPTICS, np.full((400, 400), level, np.float32), np.random.default_rng(0))
    electrons = level * OPTICS.full_well_e + OPTICS.read_noise_e**2
    rounding = 1 / 12
    expected = electrons * (255 / OPTICS.full_well_e) ** 2 + rounding
    assert pixels.astype(float).var() == pytest.approx(expected, rel=0.03)
    assert pixels.mean() == pytest.approx(level * 255, abs=0.1)


def test_what_is_too_bright_saturates():
    pixels = expose(OPTICS, np.full((8, 8), 1.4, np.float32), np.random.default_rng(0))
    assert pixels.dtype == np.uint8
    assert (pixels == 255).all()
