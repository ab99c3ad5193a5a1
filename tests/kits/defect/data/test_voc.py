import own_sets
import pytest

from kits.defect.data.config import VocData
from kits.defect.data.load import open_images


def test_the_split_files_are_followed(tmp_path):
    own_sets.write_voc(tmp_path)
    folder = tmp_path / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    for split, names in (("train", "a\n"), ("val", "b 1\n"), ("test", "c\n")):
        (folder / f"{split}.txt").write_text(names)
    images = open_images(VocData(path=str(tmp_path)))
    assert images.names("validation") == ["images/b.png"]
    assert images.names("test") == ["images/c.png"]


def test_coordinates_from_zero_are_a_setting(tmp_path):
    own_sets.write_voc(tmp_path)
    images = open_images(VocData(path=str(tmp_path), first_pixel=0))
    assert images.load("images/a.png").boxes_px[0].tolist() == [4, 5, 33, 8]


def test_images_and_labels_without_each_other_are_named(tmp_path):
    own_sets.write_voc(tmp_path)
    (tmp_path / "Annotations/b.xml").unlink()
    (tmp_path / "Annotations/z.xml").write_text("<annotation/>")
    (tmp_path / "Annotations/c.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match="problems=3") as caught:
        open_images(VocData(path=str(tmp_path)))
    assert "images/b.png: has no XML file" in str(caught.value)
    assert "Annotations/z.xml: images named z are none" in str(caught.value)
    assert "Annotations/c.xml: is no XML" in str(caught.value)


def test_objects_without_a_name_or_a_box_are_named(tmp_path):
    own_sets.write_voc(tmp_path)
    (tmp_path / "Annotations/c.xml").write_text(
        "<annotation><object><name>dent</name></object><object><bndbox><xmin>1</xmin>"
        "<ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>"
    )
    with pytest.raises(ValueError, match="problems=2") as caught:
        open_images(VocData(path=str(tmp_path)))
    assert "c.xml object 1: bndbox is not four numbers" in str(caught.value)
    assert "c.xml object 2: has no name" in str(caught.value)
