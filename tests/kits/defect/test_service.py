import base64
import io

import numpy as np
import pytest
from PIL import Image

from kits.defect.service import DefectService

PLAIN = DefectService(("scratch", "dent"), (0.5, 0.3), 1, 32, has_template=False, example={})
PAIRED = DefectService(("open",), (0.5,), 3, 32, has_template=True, example={})
COLOUR = DefectService(("stain",), (0.5,), 3, 32, has_template=False, example={})


def sent(pixels, form="PNG"):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return base64.b64encode(content.getvalue()).decode()


GREY = np.arange(40 * 50, dtype=np.uint32).reshape(40, 50).astype(np.uint8)


def test_an_image_becomes_planes_in_shares_of_white():
    image = PLAIN.decode({"image": sent(GREY)})["image"]
    assert image.shape == (1, 1, 64, 64)
    assert image.dtype == np.float32
    assert np.array_equal(np.rint(image[0, 0, :40, :50] * 255), GREY)
    assert image[0, 0, 40:].sum() == image[0, 0, :, 50:].sum() == 0


def test_a_template_goes_with_it():
    image = PAIRED.decode({"image": sent(GREY), "template": sent(255 - GREY)})["image"]
    difference = np.abs(GREY.astype(int) - (255 - GREY))
    assert np.array_equal(np.rint(image[0, 2, :40, :50] * 255), difference)


def test_colours_are_taken_as_the_model_wants_them():
    colour = np.stack([GREY, GREY, GREY], 2)
    assert PLAIN.decode({"image": sent(colour)})["image"].shape[1] == 1
    assert COLOUR.decode({"image": sent(GREY)})["image"].shape[1] == 3


def test_defects_above_the_threshold_of_their_class_are_told():
    answer = PLAIN.encode(
        {
            "boxes": np.array([[[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]], np.float32),
            "scores": np.array([[0.45, 0.4, 0.0]], np.float32),
            "classes": np.array([[0, 1, -1]]),
        }
    )
    assert answer["verdict"] == "NG"
    assert answer["defects"] == [{"class": "dent", "score": 0.4, "box_px": [5.0, 6.0, 7.0, 8.0]}]


def test_nothing_found_is_ok():
    empty = {
        "boxes": np.zeros((1, 1, 4)),
        "scores": np.zeros((1, 1)),
        "classes": np.full((1, 1), -1),
    }
    assert PLAIN.encode(empty) == {"verdict": "OK", "defects": []}


@pytest.mark.parametrize(
    ("service", "request_", "message"),
    [
        (PLAIN, [], "request is a list"),
        (PLAIN, {}, "'image' is missing or unknown"),
        (PLAIN, {"image": sent(GREY), "template": sent(GREY)}, "'template' is missing or unknown"),
        (PAIRED, {"image": sent(GREY)}, "'template' is missing"),
        (PLAIN, {"image": 5}, "image is a int"),
        (PLAIN, {"image": "%%%"}, "image is not base64"),
        (PLAIN, {"image": "aGVsbG8="}, "image is no image"),
        (PLAIN, {"image": sent(np.zeros((8, 2049), np.uint8))}, "a side is above 2048"),
        (PAIRED, {"image": sent(GREY), "template": sent(GREY[:9])}, "register it"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(service, request_, message):
    with pytest.raises(ValueError, match=message):
        service.decode(request_)
