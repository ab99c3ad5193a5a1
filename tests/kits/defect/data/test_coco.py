import json

import own_sets
import pytest

from kits.defect.data.config import CocoData
from kits.defect.data.load import open_images


def change(root, edit):
    own_sets.write_coco(root)
    path = root / "labels.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return CocoData(path=str(root))


def test_everything_that_is_wrong_with_the_file_is_named(tmp_path):
    def edit(content):
        content["annotations"][0]["category_id"] = 9
        content["annotations"][1]["image_id"] = 77
        content["annotations"][2]["bbox"] = [1, 2, 3]
        content["images"][2]["width"] = 61
        content["images"].append({"id": 5, "file_name": "gone.png"})
        content["images"].append({"id": 5, "file_name": "twice.png"})

    with pytest.raises(ValueError, match="problems=6") as caught:
        open_images(change(tmp_path, edit))
    for text in (
        "labels.json annotation 1: category_id=9 is the id of no category",
        "labels.json annotation 2: image_id is the id of no image",
        "labels.json annotation 3: bbox is not four numbers x y width height",
        "labels.json: says that images/c.png is 61x40, it is 60x40",
        "labels.json: image=gone.png is not there",
        "labels.json image 5: id=5 is used twice",
    ):
        assert text in str(caught.value)


def test_crowds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="annotation 1: is a crowd"):
        open_images(change(tmp_path, lambda content: content["annotations"][0].update(iscrowd=1)))


def test_the_names_of_the_files_state_the_splits(tmp_path):
    own_sets.write_coco(tmp_path)
    whole = json.loads((tmp_path / "labels.json").read_text())
    (tmp_path / "labels.json").unlink()
    (tmp_path / "annotations").mkdir()
    for number, name in enumerate(("instances_train2017", "instances_val2017", "instances_test")):
        part = dict(whole, images=[whole["images"][number]])
        part["annotations"] = [a for a in whole["annotations"] if a["image_id"] == number]
        (tmp_path / "annotations" / f"{name}.json").write_text(json.dumps(part))
    images = open_images(CocoData(path=str(tmp_path)))
    assert images.names("train") == ["images/a.png"]
    assert images.names("validation") == ["images/b.png"]
    assert images.names("test") == ["images/c.png"]


def test_images_are_found_by_their_last_part(tmp_path):
    def edit(content):
        for image in content["images"]:
            image["file_name"] = image["file_name"].removeprefix("images/")

    assert len(open_images(change(tmp_path, edit)).load("images/a.png").classes) == 2


def test_a_file_that_is_not_coco_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json: is not JSON with lists images"):
        open_images(CocoData(path=str(tmp_path)))


def test_a_folder_without_a_json_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.json"):
        open_images(CocoData(path=str(tmp_path)))
