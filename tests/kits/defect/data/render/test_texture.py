import numpy as np
import pytest

from kits.defect.data.render.product import draw_product
from kits.defect.data.render.texture import synthesise
from kits.defect.optics_config import OpticsConfig


def field(kind, seed=0):
    rng = np.random.default_rng(seed)
    surface = draw_product(kind, OpticsConfig(), rng, layout=False).surface
    return surface, *synthesise(surface, (256, 256), 0.08, rng)


def steepness(image, direction):
    dy, dx = np.gradient(image)
    return float(np.abs(dx * direction[0] + dy * direction[1]).mean())


@pytest.mark.parametrize("kind", ["brushed", "painted", "textured"])
def test_fields_have_no_mean_and_rms_1(kind):
    _, slopes, grain = field(kind)
    for each in (slopes, grain):
        assert each.dtype == np.float32
        assert each.mean() == pytest.approx(0, abs=1e-3)
        assert each.std() == pytest.approx(1, abs=1e-3)


def test_brush_strokes_run_across_the_axis():
    for seed in range(4):
        surface, slopes, _ = field("brushed", seed)
        along = (-surface.axis[1], surface.axis[0])
        assert steepness(slopes, surface.axis) > 4 * steepness(slopes, along)


def test_orange_peel_is_coarser_than_blasted_grain():
    fine, coarse = (steepness(field(kind)[1], (1, 0)) for kind in ("textured", "painted"))
    assert fine > 1.5 * coarse
