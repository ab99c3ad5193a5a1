import math

import numpy as np
import pytest

from kits.defect.data.render import scratch
from kits.defect.data.render.product import draw_product
from kits.defect.data.render.scene import Scene
from kits.defect.data.render.texture import synthesise
from kits.defect.optics_config import OpticsConfig

OPTICS = OpticsConfig(fov_mm=300)


def scene(kind="painted"):
    rng = np.random.default_rng(5)
    product = draw_product(kind, OPTICS, rng, layout=False)
    return Scene(product, OPTICS, (900, 1800), *synthesise(product.surface, (160, 160), 0.078, rng))


def shape(**more):
    given = {"width_mm": 0.3, "length_mm": 6.0, "contrast": 0.4, "angle": 0.6}
    return scratch.ScratchShape(**(given | {"bend": 0.0, "wobble_mm": 0.0} | more))


@pytest.mark.parametrize("kind", ["brushed", "painted", "textured"])
@pytest.mark.parametrize("contrast", [0.1, 0.4])
def test_brightness_changes_by_the_contrast(kind, contrast):
    damage = scratch.draw(scene(kind), shape(contrast=contrast), (80, 80), np.random.default_rng(1))
    area_px = 0.3 * 6.0 / OPTICS.mm_per_px**2
    # Deep places cannot be darker than black.
    assert abs(damage.change.sum()) / area_px == pytest.approx(contrast, rel=0.02)


def test_truth_is_in_millimetres_and_in_pixels():
    damage = scratch.draw(scene(), shape(), (80, 80), np.random.default_rng(1))
    assert damage.length_mm == pytest.approx(6.0, rel=0.01)
    assert damage.width_mm == 0.3
    (x1, y1), (x2, y2) = damage.segment_px
    assert math.dist((x1, y1), (x2, y2)) * OPTICS.mm_per_px == pytest.approx(6.0, rel=0.01)
    assert math.atan2(y2 - y1, x2 - x1) == pytest.approx(0.6, abs=0.01)
    left, top, right, bottom = damage.box_px
    half = 0.15 / OPTICS.mm_per_px
    assert right - left == pytest.approx(abs(x2 - x1) + 2 * half * math.sin(0.6), abs=0.1)
    assert bottom - top == pytest.approx(abs(y2 - y1) + 2 * half * math.cos(0.6), abs=0.1)


def test_a_bent_scratch_is_longer_than_the_distance_of_its_ends():
    damage = scratch.draw(scene(), shape(bend=0.15), (80, 80), np.random.default_rng(1))
    assert damage.length_mm > math.dist(*damage.segment_px) * OPTICS.mm_per_px * 1.02


def test_shapes_stay_within_their_ranges():
    rng = np.random.default_rng(0)
    drawn = [scratch.draw_shape((0.1, 0.3), (2, 5), (0.2, 0.2), rng) for _ in range(200)]
    assert all(0.1 <= each.width_mm <= 0.3 and 2 <= each.length_mm <= 5 for each in drawn)
    assert {round(each.contrast, 9) for each in drawn} == {0.2}
