import json
import math

import own_sets
import pytest

from kits.defect.data.config import LabelmeData
from kits.defect.data.load import open_images


def relabelled(root, shapes):
    own_sets.write_labelme(root)
    path = root / "images/c.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shapes": shapes}))
    return LabelmeData(path=str(root), mm_per_px=0.5)


def test_a_line_keeps_its_ends_and_its_length(tmp_path):
    shapes = [
        {"label": "scratch", "shape_type": "linestrip", "points": [[5, 5], [8, 9], [8, 20]]},
        {"label": "dent", "shape_type": "circle", "points": [[30, 20], [33, 24]]},
        {"label": "dent", "shape_type": "polygon", "points": [[40, 3], [50, 5], [45, 9]]},
    ]
    image = open_images(relabelled(tmp_path, shapes)).load("images/c.png")
    assert image.boxes_px.tolist() == [[4, 4, 9, 21], [25, 15, 35, 25], [40, 3, 50, 9]]
    assert image.segments_px[0].tolist() == [[5, 5], [8, 20]]
    assert image.lengths_mm[0] == pytest.approx((5 + 11) * 0.5)
    assert math.isnan(image.lengths_mm[1])
    assert math.isnan(image.segments_px[2, 0, 0])


def test_every_bad_shape_is_named(tmp_path):
    shapes = [
        {"label": "dent", "shape_type": "point", "points": [[1, 1]]},
        {"label": "dent", "shape_type": "polygon", "points": [[1, 1], [2, 2]]},
        {"shape_type": "rectangle", "points": [[1, 1], [2, 2]]},
    ]
    with pytest.raises(ValueError, match="problems=3") as caught:
        open_images(relabelled(tmp_path, shapes))
    assert "images/c.json shape 1: shape_type='point' is not one of" in str(caught.value)
    assert "images/c.json shape 2: has 2 points; a polygon has 3 or more" in str(caught.value)
    assert "images/c.json shape 3: has no label" in str(caught.value)


def test_an_image_outside_of_the_folder_is_not_opened(tmp_path):
    own_sets.write_labelme(tmp_path)
    path = tmp_path / "images/c.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"imagePath": "../../c.png"}))
    with pytest.raises(ValueError, match=r"imagePath='../../c\.png' is outside of data\.path"):
        open_images(LabelmeData(path=str(tmp_path)))


def test_an_image_nobody_labelled_is_named(tmp_path):
    own_sets.write_labelme(tmp_path)
    (tmp_path / "images/b.json").unlink()
    with pytest.raises(ValueError, match=r"images/b\.png: has no JSON file"):
        open_images(LabelmeData(path=str(tmp_path)))
