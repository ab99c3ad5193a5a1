import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kits.defect.data.config import NeuData
from kits.defect.data.load import open_images

PUBLISHED = Path(__file__).resolve().parents[4] / "../shared/data/neu-det-dev"


def packed(path, names):
    content = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 77, np.uint8)).save(content, "jpeg")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"set/images/{name}", content.getvalue())
        rows = [f"{name},scratches,1,1,20,5\n" for name in names]
        archive.writestr("set/boxes.csv", "image,class,xmin,ymin,xmax,ymax\n" + "".join(rows))
    return NeuData(path=str(path))


def test_blocks_of_numbers_make_the_splits(tmp_path):
    names = [f"rolled-in_scale_{number}.jpg" for number in (1, 168, 169, 192, 193, 300)]
    images = open_images(packed(tmp_path / "x.zip", names))
    assert images.names("train") == ["rolled-in_scale_1.jpg", "rolled-in_scale_168.jpg"]
    assert images.names("validation") == ["rolled-in_scale_169.jpg", "rolled-in_scale_192.jpg"]
    assert images.names("test") == ["rolled-in_scale_193.jpg", "rolled-in_scale_300.jpg"]
    image = images.load("rolled-in_scale_1.jpg")
    assert image.pixels.shape == (20, 20)
    assert (image.pixels == 77).all()
    # Their pixels count from 1, and the last one is included.
    assert image.boxes_px.tolist() == [[0, 0, 20, 5]]


def test_a_name_without_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"images/crazing\.jpg: is not <class>_<number>"):
        open_images(packed(tmp_path / "x.zip", ["crazing.jpg"]))


@pytest.mark.published_data
def test_the_published_steel():
    if not PUBLISHED.exists():
        pytest.skip("no ../shared/data/neu-det-dev beside the project")
    images = open_images(NeuData(path=str(PUBLISHED)))
    assert [len(images.names(each)) for each in ("train", "validation", "test")] == [1008, 144, 288]
    assert images.load("patches_101.jpg").pixels.shape == (200, 200)
