import numpy as np
import pytest

from kits.defect.data.render.layout import place_features
from kits.defect.data.render.product import Feature, Product, draw_product
from kits.defect.data.render.scene import Scene
from kits.defect.optics_config import OpticsConfig

OPTICS = OpticsConfig(fov_mm=38.4, sensor_width_px=384, sensor_height_px=216)  # 0.1 mm per pixel


def part(*features, shift=(0.0, 0.0)):
    bare = draw_product("painted", OPTICS, np.random.default_rng(0), layout=False)
    flat = np.zeros((216, 384), np.float32)
    product = Product(bare.surface, bare.light, features)
    return place_features(Scene(product, OPTICS, (0, 0), flat, flat.copy()), shift)


def test_a_bare_part_has_the_level_of_the_exposure():
    bare = part()
    assert bare.brightness.mean() == pytest.approx(OPTICS.level, rel=0.02)
    assert bare.is_material.all()


def test_a_bore_is_a_dark_disc_of_its_radius():
    bored = part(Feature("bore", (20.0, 10.0), (3.0, 0.5), shade=0.1))
    dark = bored.brightness < 0.5 * OPTICS.level
    # 3 to 3.5 mm: with or without its chamfer.
    assert np.pi * 30**2 * 0.95 < dark.sum() < np.pi * 36**2
    ys, xs = np.nonzero(~bored.is_material)
    assert (xs.mean(), ys.mean()) == pytest.approx((200, 100), abs=0.5)


def test_the_fixture_moves_what_is_on_the_part():
    feature = Feature("bore", (20.0, 10.0), (3.0, 0.5), shade=0.1)
    ys, xs = np.nonzero(~part(feature, shift=(2.0, -1.0)).is_material)
    assert (xs.mean(), ys.mean()) == pytest.approx((202, 99), abs=0.5)


def test_beside_the_part_there_is_none():
    edged = part(Feature("edge", (19.2, 10.8), (15.0, 8.0), shade=0.05))
    assert edged.is_material.sum() == pytest.approx(300 * 160, rel=0.02)
    assert edged.brightness[0].mean() == pytest.approx(0.05 * OPTICS.level, rel=0.01)


@pytest.mark.parametrize("angle", [0.0, np.pi / 2])
def test_grooves_and_marks_keep_defects_away(angle):
    for kind in ("groove", "mark"):
        there = part(Feature(kind, (19.0, 10.0), (6.0, 1.0), angle, 0.5, 3))
        ys, xs = np.nonzero(~there.is_material)
        long, short = (np.ptp(ys), np.ptp(xs)) if angle else (np.ptp(xs), np.ptp(ys))
        assert long == pytest.approx(120, abs=3)
        assert short == pytest.approx(20, abs=3)
        assert np.abs(there.brightness - part().brightness).max() > 0.02
