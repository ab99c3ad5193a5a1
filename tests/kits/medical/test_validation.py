"""Quick numbers of crops, against what they are by hand."""

import numpy as np
import pytest

from kits.medical.sampling import FULL, Crop
from kits.medical.sampling_config import SamplingConfig
from kits.medical.validation import average_precision, crop_metrics

CFG = SamplingConfig(patch=[16, 16, 16])
SHAPE = (20, 20, 20)
CENTRE = (9.5, 9.5, 9.5)


def make_crop(has_nodule=True, is_patch=False):
    place = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    is_ball = (np.linalg.norm(place - CENTRE, axis=-1) <= 3) & has_nodule
    number = int(has_nodule)
    return Crop(
        "fine_nodules" if has_nodule else "fine_lungs", "case", "a" if has_nodule else "",
        np.where(is_ball, 50, -850).astype(np.int16), np.where(is_ball, FULL, 0).astype(np.uint8),
        (1.0, 1.0, 1.0), np.array([CENTRE] * number, np.float32).reshape(-1, 3),
        np.full(number, 6.0, np.float32), np.zeros(number, np.int8), np.ones(number, bool),
        is_patch=is_patch,
    )  # fmt: skip


def network(heat_at=None, inside=3.0):
    """Marks what is dense; one peak at a cell of the heat-map."""

    def answer(inputs):
        image = inputs["image"]
        heat = np.full((len(image), 1, 8, 8, 8), -9, np.float32)
        if heat_at is not None:
            heat[(slice(None), 0, *heat_at)] = 2
        texture = np.zeros((len(image), 3, 8, 8, 8), np.float32)
        texture[:, 0] = 1
        return {"mask": np.where(image > -400, inside, -3), "heat": heat, "texture": texture}

    return answer


def test_a_perfect_network_scores_one():
    crops = [make_crop(), make_crop(has_nodule=False)]

    def perfect(inputs):
        found = network()(inputs)
        found["heat"][0, 0, 4, 4, 4] = 2
        return found

    metrics = crop_metrics(perfect, crops, CFG)
    assert metrics["dice"] == pytest.approx(1)
    assert metrics["heat_ap"] == pytest.approx(1)
    assert metrics["texture_accuracy"] == 1


def test_a_false_alarm_above_the_nodule_halves_the_precision():
    crops = [make_crop(), make_crop(has_nodule=False)]

    def alarmed(inputs):
        found = network((4, 4, 4))(inputs)
        found["heat"][1, 0, 4, 4, 4] = 5
        return found

    assert crop_metrics(alarmed, crops, CFG)["heat_ap"] == pytest.approx(0.5)


def test_a_peak_far_from_the_nodule_is_no_hit():
    assert crop_metrics(network((0, 0, 0)), [make_crop()], CFG)["heat_ap"] < 0.5


def test_the_threshold_is_the_one_with_the_best_dice():
    # A probability of 0.4 inside: only lower thresholds mark it.
    found = crop_metrics(network(inside=np.log(0.4 / 0.6)), [make_crop()], CFG)
    assert found["dice"] == pytest.approx(1)
    assert found["mask_threshold"] < 0.4


def test_patches_say_nothing_about_peaks():
    assert "heat_ap" not in crop_metrics(network(), [make_crop(is_patch=True)], CFG)


def test_precision_counts_what_was_missed():
    assert average_precision([3, 2, 1], [True, False, True], 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([3.0], [True], 4) == pytest.approx(0.25)
    assert average_precision([], [], 1) == 0
