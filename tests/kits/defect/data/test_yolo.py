import own_sets
import pytest

from kits.defect.data.config import YoloData
from kits.defect.data.load import open_images


def test_an_image_without_a_label_file_is_clean(tmp_path):
    own_sets.write_yolo(tmp_path)
    (tmp_path / "labels/c.txt").unlink()
    assert len(open_images(YoloData(path=str(tmp_path))).load("images/c.png").boxes_px) == 0


def test_every_bad_line_is_named(tmp_path):
    own_sets.write_yolo(tmp_path)
    (tmp_path / "labels/c.txt").write_text(
        "7 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n0 0.5 x 0.1 0.1\n0 0.5 0.5 2 0.1\n"
    )
    (tmp_path / "labels/z.txt").write_text("")
    with pytest.raises(ValueError, match="problems=5") as caught:
        open_images(YoloData(path=str(tmp_path)))
    for text in (
        "labels/c.txt line 1: class=7 is not from 0 to 1",
        "labels/c.txt line 2: has 3 numbers behind the class",
        "labels/c.txt line 3: is not numbers",
        "labels/c.txt line 4: box=[-30, 18, 90, 22] reaches 30 px beyond",
        "labels/z.txt: has no image of its name",
    ):
        assert text in str(caught.value)


def test_polygons_become_boxes(tmp_path):
    own_sets.write_yolo(tmp_path)
    (tmp_path / "labels/c.txt").write_text("1 0.1 0.5 0.2 0.25 0.4 0.75\n")
    image = open_images(YoloData(path=str(tmp_path))).load("images/c.png")
    assert image.boxes_px.tolist() == [[6, 10, 24, 30]]


def test_data_yaml_states_splits_and_names(tmp_path):
    for split in ("train", "val"):
        own_sets.write_images(tmp_path, [f"images/{split}/{n}.png" for n in range(10)])
    (tmp_path / "set.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: dent, 1: scratch}\n"
    )
    images = open_images(YoloData(path=str(tmp_path)))
    assert images.class_names == ("dent", "scratch")
    # No test split is stated: what was kept apart takes its place.
    assert images.names("test") == [f"images/val/{n}.png" for n in range(10)]
    assert len(images.names("train")) + len(images.names("validation")) == 10
    assert 0 < len(images.names("validation")) < 5


def test_a_set_without_class_names_is_refused(tmp_path):
    own_sets.write_images(tmp_path)
    with pytest.raises(ValueError, match=r"no data\.yaml with names and no classes\.txt"):
        open_images(YoloData(path=str(tmp_path)))
