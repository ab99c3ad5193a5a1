import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kits.defect.data.config import DeepPcbData
from kits.defect.data.load import open_images

PUBLISHED = Path(__file__).resolve().parents[4] / "../shared/data/deeppcb-dev"
TABLE = "image,class,xmin,ymin,xmax,ymax\n"


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels > 0).save(content, "png")  # 1 bit, as published
    return content.getvalue()


def packed(path, names, rows):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            tested = np.zeros((20, 30), np.uint8)
            tested[5:9, 4:12] = 1
            archive.writestr(f"tested/{name}", png(tested))
            archive.writestr(f"template/{name}", png(tested * 0))
        archive.writestr("boxes.csv", TABLE + "".join(rows))
    return DeepPcbData(path=str(path))


NAMES = [f"{board}001.png" for board in ("00041", "13000", "44000", "12000")]


def test_boards_make_the_splits_and_unknown_ones_are_test(tmp_path):
    rows = [f"{name},short,4,5,12,9\n" for name in NAMES]
    images = open_images(packed(tmp_path / "x.zip", NAMES, rows))
    assert images.names("train") == ["00041001.png"]
    assert images.names("validation") == ["13000001.png"]
    assert images.names("test") == ["12000001.png", "44000001.png"]
    image = images.load("44000001.png")
    assert image.pixels.dtype == np.uint8
    assert set(np.unique(image.pixels)) == {0, 255}
    assert image.template.max() == 0
    assert image.boxes_px.tolist() == [[4, 5, 12, 9]]
    assert images.class_names[image.classes[0]] == "short"
    assert image.mm_per_px == pytest.approx(1 / 48)


def test_an_unpacked_folder_reads_the_same(tmp_path):
    rows = [f"{NAMES[0]},short,4,5,12,9\n"]
    cfg = packed(tmp_path / "x.zip", NAMES, rows)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = open_images(DeepPcbData(path=str(tmp_path / "unpacked")))
    assert unpacked.fingerprint == open_images(cfg).fingerprint


def test_a_published_file_that_was_changed_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has sha256=.*, published was f4b7.*; copy it again"):
        open_images(packed(tmp_path / "deeppcb-trainval.zip", NAMES, []))


def test_bad_rows_are_named(tmp_path):
    rows = [
        "gone.png,short,1,1,2,2\n",
        f"{NAMES[0]},shirt,1,1,2,2\n",
        f"{NAMES[0]},short,1,1,x,2\n",
    ]
    with pytest.raises(ValueError, match="problems=3") as caught:
        open_images(packed(tmp_path / "x.zip", NAMES, rows))
    assert "boxes.csv line 2: image='gone.png' is not there" in str(caught.value)
    assert "boxes.csv line 3: class='shirt' is not one of open, short" in str(caught.value)
    assert "boxes.csv line 4: box=[1, 1, nan, 2] is not four finite numbers" in str(caught.value)


@pytest.mark.published_data
def test_the_published_boards():
    if not PUBLISHED.exists():
        pytest.skip("no ../shared/data/deeppcb-dev beside the project")
    images = open_images(DeepPcbData(path=str(PUBLISHED)))
    assert [len(images.names(split)) for split in ("train", "validation", "test")] == [
        461,
        198,
        341,
    ]
    boxes = sum(
        len(images.load(name).boxes_px) for name in images.names("test") if name.startswith("44000")
    )
    assert boxes > 100
