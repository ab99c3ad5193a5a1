import own_sets
import pytest
from PIL import Image

from kits.defect.data.config import VocData, YoloData
from kits.defect.data.load import open_images
from kits.defect.data.validate import Problems, box_problem


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((0, 0, 10, 5), None),
        ((-0.6, 0, 10, 5.9), None),  # a tool's rounding
        ((1, 1, float("nan"), 3), "not four finite numbers"),
        ((5, 1, 5, 3), "has no area"),
        ((7, 1, 5, 3), "has no area"),
        ((0, 0, 12, 5), "reaches 2 px beyond the image of 10x5"),
        ((10, 0, 10.5, 5), "outside of the image"),
    ],
)
def test_a_box_is_checked(box, text):
    found = box_problem(box, 10, 5)
    assert (found is None) if text is None else (text in found)


def test_every_bad_box_is_named_and_none_that_is_left_out(tmp_path):
    boxes = dict(own_sets.BOXES)
    boxes["images/a.png"] = [("scratch", (3, 4, 33, 8))] * 2 + [("dent", (40, 20, 90, 40))]
    boxes["images/b.png"] = [("dent", (9, 5, 9, 10)), ("dint", (0, 0, 5, 5))]
    own_sets.write_voc(tmp_path, boxes)
    with pytest.raises(ValueError, match="problems=4") as caught:
        open_images(VocData(path=str(tmp_path), class_names=own_sets.CLASSES))
    lines = str(caught.value).splitlines()
    assert "'data.leave_out=[images/a.png,images/b.png]'" in lines[0]
    assert lines[1:] == [
        "  Annotations/a.xml object 2: is the same box as object 1",
        "  Annotations/a.xml object 3: box=[40, 20, 90, 40] reaches 30 px beyond the image of "
        "60x40",
        "  Annotations/b.xml object 1: box=[9, 5, 9, 10] has no area: x1 < x2 and y1 < y2",
        "  Annotations/b.xml object 2: class='dint' is not one of dent, scratch",
    ]
    with pytest.raises(ValueError, match="problems=2"):
        open_images(
            VocData(path=str(tmp_path), class_names=own_sets.CLASSES, leave_out=("images/a.png",))
        )


def test_images_that_cannot_be_read_as_they_are_are_refused(tmp_path):
    own_sets.write_yolo(tmp_path)
    Image.new("I;16", own_sets.SIZE).save(tmp_path / "images/a.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", own_sets.SIZE).save(tmp_path / "images/b.jpg", exif=exif)
    with pytest.raises(ValueError, match="problems=2") as caught:
        open_images(YoloData(path=str(tmp_path)))
    assert "images/a.png: has mode=I;16, which is not 8 bits of grey or RGB" in str(caught.value)
    assert "images/b.jpg: is turned by its EXIF orientation" in str(caught.value)


def test_a_file_that_ends_early_passes_only_where_pixels_are_not_looked_at(tmp_path):
    own_sets.write_yolo(tmp_path)
    path = tmp_path / "images/a.png"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"images/a\.png: is no image"):
        open_images(YoloData(path=str(tmp_path)))
    open_images(YoloData(path=str(tmp_path), check_pixels=False))


def test_nothing_wrong_refuses_nothing():
    Problems("somewhere", ()).refuse()
