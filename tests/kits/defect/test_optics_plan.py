import math
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import fft, ndimage

from kits.defect.data.render import scratch
from kits.defect.data.render.camera import blur, blur_window, noise_of
from kits.defect.data.render.product import Light, Product, Surface, draw_product
from kits.defect.data.render.scene import Scene
from kits.defect.data.render.texture import synthesise
from kits.defect.optics_config import OpticsConfig, OpticsPlanConfig
from kits.defect.optics_plan import check_optics, plan_for, plan_optics


@pytest.mark.parametrize(
    ("fov_mm", "mm_per_px", "px"),
    [
        (150, 0.039, 5.1),
        (256, 0.067, 3.0),
        (300, 0.078, 2.6),
        (600, 0.156, 1.3),
        (1000, 0.26, 0.77),
    ],
)
def test_pixels_follow_the_field_of_view(fov_mm, mm_per_px, px):
    report = plan_optics(OpticsPlanConfig(fov_mm=fov_mm))
    assert report.mm_per_px == pytest.approx(mm_per_px, abs=5e-4)
    assert report.defect_px == pytest.approx(px, abs=0.05)
    assert report.rule_fov_mm == pytest.approx(256)
    assert report.comfort_fov_mm == pytest.approx(153.6)


def test_more_of_anything_good_is_seen_better():
    base = plan_optics(OpticsPlanConfig()).d_prime
    for better in (
        {"fov_mm": 200},
        {"contrast": 0.3},
        {"length_mm": 4.0},
        {"texture": 0.02},
        {"defocus_mm": 0.0},
    ):
        assert plan_optics(OpticsPlanConfig(**better)).d_prime > base
    for worse in ({"speed_mm_per_s": 2000.0}, {"f_number": 16.0}, {"defocus_mm": 20.0}):
        assert plan_optics(OpticsPlanConfig(**worse)).d_prime < base


def test_a_set_up_below_the_rule_passes_with_a_note():
    report = check_optics(OpticsPlanConfig(fov_mm=300))
    assert not report.refusals
    assert "2.6 px across is below the rule of 3" in report.warnings[0]
    assert not check_optics(OpticsPlanConfig(fov_mm=150)).warnings


def test_a_set_up_that_cannot_see_its_defect_is_refused_with_numbers():
    with pytest.raises(
        ValueError, match=r"is 1\.28 px across at fov_mm=600, below least_px=2; set"
    ):
        check_optics(OpticsPlanConfig(fov_mm=600))
    with pytest.raises(ValueError, match=r"detection=0\.00\d+ of defects of 0\.2 x 2 mm at contr"):
        check_optics(OpticsPlanConfig(contrast=0.05))


def test_the_largest_field_of_view_is_the_edge_of_refusal():
    for cfg in (
        OpticsPlanConfig(),
        OpticsPlanConfig(length_mm=0.2),
        OpticsPlanConfig(contrast=0.07),
    ):
        edge = plan_optics(cfg).largest_fov_mm
        check_optics(replace(cfg, fov_mm=edge * 0.999))
        with pytest.raises(ValueError, match=r"px across|detection"):
            check_optics(replace(cfg, fov_mm=edge * 1.001))
    hopeless = OpticsPlanConfig(contrast=0.001)
    assert plan_optics(hopeless).largest_fov_mm == 0
    assert "no field of view does" in plan_optics(hopeless).refusals[0]


def test_a_recipe_asks_with_what_it_knows():
    cfg = plan_for(mm_per_px=0.078125, width_px=3840, height_px=2160, defect_mm=0.2)
    assert cfg.fov_mm == pytest.approx(300)
    assert plan_optics(cfg).detection == pytest.approx(plan_optics(OpticsPlanConfig()).detection)


def test_the_plan_predicts_what_the_renderer_shows():
    """The energy of a rendered scratch over the plan's, over where it falls between pixels."""
    cfg = OpticsPlanConfig(fov_mm=300, contrast=0.3)
    flat = Surface("painted", (1.0, 0.0), (0.2, 0.2), 1.0, 0.0, 0.01, 1.0, 4.0, 0.0, 0.0)
    light = Light((0.1, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 0.0)
    seen = []
    for offset in np.linspace(0, 1, 5):
        zeros = np.zeros((96, 96), np.float32)
        scene = Scene(Product(flat, light), cfg, (1000, 1900), zeros, zeros.copy())
        shape = scratch.ScratchShape(0.2, 2.0, cfg.contrast, math.pi / 2, 0.0, 0.0)
        damage = scratch.draw(scene, shape, (48 + offset, 48.0), np.random.default_rng(1))
        change = blur_window(cfg, damage.change * cfg.level)
        seen.append(float((change**2).sum()))
    report = plan_optics(cfg)
    noise = report.contrast_seen * cfg.level / report.contrast_to_noise
    assert math.sqrt(np.mean(seen)) / noise == pytest.approx(report.d_prime, rel=0.1)


def observed_d_prime(cfg, kind, number, angle_to_texture):
    """Of a line on a rendered surface, for an observer who knows the texture's spectrum."""
    size = 256
    optics = {field.name: getattr(cfg, field.name) for field in fields(OpticsConfig)}
    product = draw_product(kind, cfg, np.random.default_rng(number), layout=False)
    hann = np.hanning(size)[:, None] * np.hanning(size)[None, :]
    power, texture = 0.0, []
    for part in range(8):
        rng = np.random.default_rng([number, part])
        textures = synthesise(product.surface, (size + 32, size + 32), cfg.mm_per_px, rng)
        scene = Scene(product, OpticsConfig(**optics), (1000, 1800), *textures)
        (clean,) = blur(cfg, scene.whole(), ((0.0, 0.0),))
        seen = clean[16:-16, 16:-16]
        texture.append((seen - ndimage.uniform_filter(seen, 31)).std() / seen.mean())
        seen = seen + noise_of(cfg, seen) * rng.standard_normal(seen.shape)
        power = power + np.abs(fft.fft2((seen - seen.mean()) * hann)) ** 2 / (hann**2).sum() / 8
    axis = product.surface.axis
    shape = scratch.ScratchShape(
        0.2, 2.0, cfg.contrast,
        math.atan2(axis[1], axis[0]) + math.pi / 2 + angle_to_texture, 0.0, 0.0,
    )  # fmt: skip
    damage = scratch.draw(scene, shape, (140.0, 140.0), np.random.default_rng(1))
    change = blur_window(cfg, damage.change * np.float32(cfg.level))
    energy = np.abs(fft.fft2(change, (size, size))) ** 2
    power = ndimage.uniform_filter(power, 3, mode="wrap")
    return math.sqrt((energy / power).mean()), float(np.mean(texture))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["brushed", "painted", "textured"])
@pytest.mark.parametrize("number", [0, 1])
def test_rendered_texture_leaves_the_share_of_d_prime_that_the_plan_takes(kind, number):
    cfg = OpticsPlanConfig()
    shares = []
    for angle in (0.0, math.pi / 4, math.pi / 2):
        observed, texture = observed_d_prime(cfg, kind, number, angle)
        shares.append(observed / plan_optics(replace(cfg, texture=texture)).d_prime)
    assert min(shares) > 0.9 * cfg.efficiency
    assert max(shares) < 3
