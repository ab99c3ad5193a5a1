from dataclasses import replace

import numpy as np
import pytest

from kits.defect.augment import training_sample
from kits.defect.data.config import TilingConfig
from kits.defect.data.image_set import LabelledImage
from kits.defect.sampling_config import SamplingConfig

PLAIN = SamplingConfig(
    size_px=64, is_turned=False, scaled=0.0, contrast=0.0, brightness=0.0, noise=0.0,
    template_shift_px=0,
)  # fmt: skip
TILING = TilingConfig(size_px=None)


def sample(images, seed, **changes):
    rng = np.random.default_rng(seed)
    return training_sample(images, replace(PLAIN, **changes), TILING, rng)


def is_marked(found, tolerance=1.5):
    """Whether each box lies around the bright or dark pixels of its class."""
    for box, kind in zip(found.boxes, found.classes, strict=True):
        x1, y1, x2, y2 = np.round(box).astype(int)
        inside = found.planes[0, y1:y2, x1:x2].astype(float)
        middle = inside[len(inside) // 2, inside.shape[1] // 2]
        if not (middle > 180 if kind == 0 else middle < 60):
            return False
        around = found.planes[0].astype(float)
        ring = around[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3]
        mask = ring > 200 if kind == 0 else ring < 40
        height, width = mask.any(1).sum(), mask.any(0).sum()
        if abs(height - (y2 - y1)) > tolerance or abs(width - (x2 - x1)) > tolerance:
            return False
    return True


@pytest.mark.parametrize(
    "changes",
    [{}, {"is_turned": True}, {"scaled": 1.0, "scale": 0.3}, {"size_px": 128}, {"size_px": 96}],
    ids=["crop", "turned", "scaled", "larger than the image", "of its size"],
)
def test_boxes_stay_on_their_defects(rectangles, changes):
    images, number = rectangles(side=96), 0
    for name in images.names("train"):
        for seed in range(4):
            found = sample([images.load(name)], seed, **changes)
            size = changes.get("size_px", 64)
            assert found.planes.shape == (1, size, size)
            assert is_marked(found, 2.5)
            number += len(found.boxes)
    assert number > 10


def test_a_mosaic_keeps_boxes_of_all_four(rectangles):
    images = rectangles(side=96)
    four = [images.load(f"train-{k}") for k in range(4)]
    found = [sample(four, seed, size_px=96) for seed in range(8)]
    assert all(is_marked(one) for one in found)
    assert max(len(one.boxes) for one in found) >= 4


def test_a_sample_is_drawn_again_from_its_seed(rectangles):
    image = rectangles(side=96, has_template=True).load("train-1")
    changes = {"is_turned": True, "noise": 4.0, "contrast": 0.2, "scaled": 1.0, "scale": 0.2}
    first, again, other = (sample([image], seed, **changes) for seed in (5, 5, 6))
    assert np.array_equal(first.planes, again.planes)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.planes, other.planes)


def test_template_and_difference_go_with_the_image(rectangles):
    image = rectangles(side=96, has_template=True).load("train-1")
    found = sample([image], 0, is_turned=True, around_defect=1.0)
    assert found.planes.shape == (3, 64, 64)
    test, template, difference = found.planes.astype(int)
    assert np.array_equal(difference, abs(test - template))
    x1, y1, x2, y2 = np.round(found.boxes[0]).astype(int)
    assert difference[y1:y2, x1:x2].mean() > 50
    outside = difference.copy()
    for x1, y1, x2, y2 in np.round(found.boxes).astype(int):
        outside[y1:y2, x1:x2] = 0
    assert outside.sum() == 0


def test_a_template_moves_as_registration_may(rectangles):
    image = rectangles(side=96, has_template=True).load("train-1")
    found = [sample([image], seed, template_shift_px=2).planes[2].mean() for seed in range(6)]
    assert max(found) > min(found)


def test_colours_stay_colours():
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[..., 1] = 200
    image = LabelledImage("a", pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    found = sample([image], 0, size_px=32, is_turned=True)
    assert found.planes.reshape(3, -1).mean(1).tolist() == [0, 200, 0]
