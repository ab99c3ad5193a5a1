import numpy as np
import pytest

from kits.defect.calibration import calibrate


def places(shape, turn_deg, step_px, stretch=1.0):
    """Of each pixel, in steps of a grid that is turned."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    turn = np.radians(turn_deg)
    along = (x * np.cos(turn) + y * np.sin(turn)) / step_px
    across = (y * np.cos(turn) - x * np.sin(turn)) / (step_px * stretch)
    return along, across


def dots(shape, turn_deg, step_px, stretch=1.0):
    along, across = places(shape, turn_deg, step_px, stretch)
    far = np.hypot(along - np.rint(along), across - np.rint(across)) * step_px
    noise = np.random.default_rng(1).normal(0, 3, shape)
    return (210 - 180 / (1 + np.exp((far - step_px / 4) * 2)) + noise).clip(0, 255).astype(np.uint8)


def checker(shape, turn_deg, step_px):
    along, across = places(shape, turn_deg, step_px)
    dark = (np.floor(along) + np.floor(across)) % 2 == 0
    return np.where(dark, 40, 200).astype(np.uint8)


@pytest.mark.parametrize(("turn_deg", "step_px"), [(0.0, 20.0), (1.3, 23.7), (-4.0, 41.21)])
def test_measures_a_pixel_to_a_part_in_five_thousand(turn_deg, step_px):
    for draw in (dots, checker):
        kind = draw.__name__
        found = calibrate(draw((600, 800), turn_deg, step_px), kind, 2.5)
        assert found.mm_per_px == pytest.approx(2.5 / step_px, rel=2e-4), kind
        assert abs(found.turn_deg) == pytest.approx(abs(turn_deg), abs=0.05), kind


def test_refuses_a_camera_that_is_tilted():
    with pytest.raises(ValueError, match=r"steps of .* px, .* apart"):
        calibrate(dots((600, 800), 2.0, 25.0, stretch=1.05), "dots", 1.0)


@pytest.mark.parametrize("name", ["flat", "noise"])
def test_refuses_what_is_no_grid(name):
    noise = np.random.default_rng(2).integers(0, 255, (300, 300), np.uint8)
    pixels = {"flat": np.full((300, 300), 90, np.uint8), "noise": noise}[name]
    with pytest.raises(ValueError, match="shows no grid"):
        calibrate(pixels, "dots", 1.0)
