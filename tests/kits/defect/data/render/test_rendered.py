from dataclasses import replace

import numpy as np
import pytest

from kits.defect.data.config import DEFECTS, RenderedData
from kits.defect.data.image_set import SPLITS, names_of
from kits.defect.data.load import open_images
from kits.defect.optics_config import OpticsConfig

SMALL = RenderedData(width_px=256, height_px=192, num_train=40, num_validation=2, num_test=3)
TWIN = replace(SMALL, template=True, template_shift_px=0.0, template_light=0.0)


def load(cfg, number, split="train"):
    return open_images(cfg).load(f"{split}-{number:06d}")


def difference(image):
    return np.abs(image.pixels.astype(int) - image.template)


def test_the_same_name_is_the_same_image_in_any_order():
    first = open_images(TWIN)
    image = first.load("train-000003")
    second = open_images(TWIN)
    second.load("train-000001")
    again = second.load("train-000003")
    np.testing.assert_array_equal(image.pixels, again.pixels)
    np.testing.assert_array_equal(image.template, again.template)
    np.testing.assert_array_equal(image.boxes_px, again.boxes_px)
    assert first.fingerprint == second.fingerprint


def test_other_seeds_splits_and_numbers_are_other_images():
    images = [
        load(SMALL, 0), load(SMALL, 3), load(SMALL, 0, "test"), load(replace(SMALL, seed=1), 0)
    ]  # fmt: skip
    assert len({image.pixels.tobytes() for image in images}) == 4
    assert open_images(replace(SMALL, seed=1)).fingerprint != open_images(SMALL).fingerprint


def test_names_and_shapes():
    images = open_images(SMALL)
    assert [len(images.names(split)) for split in SPLITS] == [40, 2, 3]
    assert len(names_of(images, "all")) == 45
    assert images.class_names == DEFECTS
    image = images.load("validation-000001")
    assert image.pixels.shape == (192, 256)
    assert image.pixels.dtype == np.uint8
    assert image.mm_per_px == pytest.approx(300 / 3840)
    assert image.template is None
    for name in ("train-000040", "moon-000000", "train-x"):
        with pytest.raises(ValueError, match="is no rendered image"):
            images.load(name)


def test_truth_fits_together():
    for number in range(12):
        image = load(SMALL, number)
        count = len(image.boxes_px)
        for each in (image.classes, image.lengths_mm, image.widths_mm, image.contrasts_to_noise):
            assert len(each) == count
        assert image.segments_px.shape == (count, 2, 2)
        assert (image.boxes_px >= 0).all()
        assert (image.boxes_px[:, 2:] <= [256, 192]).all()
        assert (image.lengths_mm >= image.widths_mm).all()
        is_scratch = image.classes == DEFECTS.index("scratch")
        np.testing.assert_array_equal(np.isnan(image.segments_px[:, 0, 0]), ~is_scratch)


def test_all_that_differs_from_the_template_lies_in_a_box():
    found = 0
    for number in range(12):
        image = load(TWIN, number)
        outside = np.ones(image.pixels.shape, bool)
        for x1, y1, x2, y2 in image.boxes_px:
            # A dent has no edge: up to a quarter of its size some of it is left.
            reach = 2 + 0.3 * max(x2 - x1, y2 - y1)
            outside[
                int(max(0, y1 - reach)) : int(y2 + reach) + 1,
                int(max(0, x1 - reach)) : int(x2 + reach) + 1,
            ] = False
        # Six standard deviations of two exposures at the brightest.
        assert difference(image)[outside].max() <= 6 * np.sqrt(2) * 255 / np.sqrt(10500) + 1
        for (x1, y1, x2, y2), contrast in zip(
            image.boxes_px.astype(int), image.contrasts_to_noise, strict=True
        ):
            inside = difference(image)[y1:y2, x1:x2].mean()
            found += inside > 1.3 * difference(image)[outside].mean()
            assert contrast > 0
    assert found >= 8


def test_a_template_is_shifted_and_lit_a_little():
    cfg = replace(TWIN, clean=1.0, template_shift_px=0.7, template_light=0.02, layout=False)
    moved = np.mean([difference(load(cfg, number)).mean() for number in range(3)])
    still = np.mean([difference(load(replace(TWIN, clean=1.0), n)).mean() for n in range(3)])
    assert still < moved < 12


def test_only_wanted_defects_and_surfaces_are_drawn():
    cfg = replace(
        SMALL, defects=("scratch",), clean=0.0, scratch_width_mm=(0.2, 0.2),
        scratch_length_mm=(2.0, 4.0), scratch_contrast=(0.3, 0.3),
    )  # fmt: skip
    images = [load(cfg, number) for number in range(8)]
    assert all(len(image.classes) for image in images)
    assert {int(c) for image in images for c in image.classes} == {DEFECTS.index("scratch")}
    lengths = np.concatenate([image.lengths_mm for image in images])
    assert (lengths > 1.98).all()
    assert (lengths < 4.1).all()
    assert {float(w) for image in images for w in image.widths_mm} == {np.float32(0.2)}


def test_scratches_are_drawn_as_often_as_they_should_be():
    cfg = replace(SMALL, clean=0.0, mean_defects=3.0)
    scratch = DEFECTS.index("scratch")
    shares = [
        np.concatenate(
            [load(replace(cfg, scratch_share=share), number).classes for number in range(12)]
        )
        == scratch
        for share in (0.0, 0.9)
    ]
    assert not shares[0].any()
    assert shares[1].mean() > 0.6


def test_clean_is_a_share_of_the_images():
    counts = [len(load(replace(SMALL, clean=0.5), number).classes) for number in range(30)]
    assert 8 <= counts.count(0) <= 22
    assert not len(load(replace(SMALL, clean=1.0), 0).classes)


def test_a_closer_camera_shows_a_defect_larger():
    near = OpticsConfig(fov_mm=75)
    cfg = replace(SMALL, defects=("scratch",), clean=0.0, scratch_length_mm=(3.0, 3.0))
    far_px = np.hypot(*(load(cfg, 1).segments_px[0, 0] - load(cfg, 1).segments_px[0, 1]))
    image = load(replace(cfg, optics=near), 1)
    near_px = np.hypot(*(image.segments_px[0, 0] - image.segments_px[0, 1]))
    assert near_px == pytest.approx(4 * far_px, rel=0.05)
    assert image.mm_per_px == pytest.approx(75 / 3840)


def test_parts_of_a_product_share_their_layout_but_not_their_grain():
    cfg = replace(
        SMALL, clean=1.0, product=2, width_px=384, height_px=216,
        optics=OpticsConfig(fov_mm=300, sensor_width_px=384, sensor_height_px=216),
    )  # fmt: skip
    first, second = (load(cfg, number).pixels.astype(float) for number in (0, 1))
    other = load(replace(cfg, product=5), 0).pixels.astype(float)
    alike = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert alike > 0.6
    assert alike > np.corrcoef(first.ravel(), other.ravel())[0, 1] + 0.2
    assert np.abs(first - second).mean() > 1


def test_defects_lie_on_the_part():
    """None in a bore: its centre is never darker than half of the surface, undamaged."""
    cfg = replace(TWIN, clean=0.0, mean_defects=6.0, num_train=400)
    for number in range(0, 30, 2):
        image = load(cfg, number)
        bright = np.median(image.template)
        for x1, y1, x2, y2 in image.boxes_px.astype(int):
            assert image.template[(y1 + y2) // 2, (x1 + x2) // 2] > 0.3 * bright
