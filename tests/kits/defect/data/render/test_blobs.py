import numpy as np
import pytest

from kits.defect.data.render import blobs
from kits.defect.data.render.product import draw_product
from kits.defect.data.render.scene import Scene
from kits.defect.data.render.texture import synthesise
from kits.defect.optics_config import OpticsConfig

OPTICS = OpticsConfig(fov_mm=150)


@pytest.mark.parametrize("kind", blobs.DRAWERS)
@pytest.mark.parametrize("surface", ["brushed", "painted", "textured"])
def test_the_change_lies_in_its_box_and_is_as_large_as_it_says(kind, surface):
    rng = np.random.default_rng(2)
    product = draw_product(surface, OPTICS, rng, layout=False)
    textures = synthesise(product.surface, (500, 500), OPTICS.mm_per_px, rng)
    scene = Scene(product, OPTICS, (500, 900), *textures)
    for number in range(6):
        damage = blobs.DRAWERS[kind](scene, (250, 250), np.random.default_rng(number))
        x1, y1, x2, y2 = damage.box_px
        core_y, core_x = np.nonzero(damage.is_core)
        assert x1 - damage.left <= core_x.min()
        assert core_x.max() < x2 - damage.left
        assert y1 - damage.top <= core_y.min()
        assert core_y.max() < y2 - damage.top
        assert np.abs(damage.change[damage.is_core]).mean() > 0.02
        # A line across the box is as long as the longer side at least, the diagonal at most.
        length_px = damage.length_mm / OPTICS.mm_per_px
        assert 0.6 * max(x2 - x1, y2 - y1) <= length_px <= np.hypot(x2 - x1, y2 - y1) + 2
        assert 0 < damage.width_mm <= damage.length_mm
        # At the window's edge there is little left.
        edge = np.concatenate([damage.change[0], damage.change[-1], damage.change[:, 0]])
        assert np.abs(edge).max() < 0.12
