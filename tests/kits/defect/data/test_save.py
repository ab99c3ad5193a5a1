import json

import numpy as np
import pytest

from kits.defect.data.config import CocoData, RenderedData
from kits.defect.data.load import open_images
from kits.defect.data.save import save_coco

CFG = RenderedData(width_px=256, height_px=192, num_train=3, clean=0.0, template=True)


def test_what_is_written_is_read_again(tmp_path):
    images = open_images(CFG)
    names = images.names("train")
    save_coco(images, names, tmp_path)
    again = open_images(
        CocoData(path=str(tmp_path), templates="templates", mm_per_px=CFG.optics.mm_per_px)
    )
    assert again.class_names == images.class_names
    for name in names:
        image, copy = images.load(name), again.load(f"images/{name}.png")
        np.testing.assert_array_equal(copy.pixels, image.pixels)
        np.testing.assert_array_equal(copy.template, image.template)
        # As width and height a box is rounded once more.
        np.testing.assert_allclose(copy.boxes_px, image.boxes_px, atol=1e-4)
        np.testing.assert_array_equal(copy.classes, image.classes)
    annotations = json.loads((tmp_path / "labels.json").read_text())["annotations"]
    lengths = np.concatenate([images.load(name).lengths_mm for name in names])
    assert [each["length_mm"] for each in annotations] == lengths.tolist()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="is not empty; choose another folder"):
        save_coco(open_images(CFG), [], tmp_path)
