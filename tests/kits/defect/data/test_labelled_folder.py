from dataclasses import replace

import numpy as np
import own_sets
import pytest
from PIL import Image

from kits.defect.data.config import CocoData, LabelmeData, VocData, YoloData
from kits.defect.data.image_set import SPLITS, names_of
from kits.defect.data.load import open_images

CONFIGS = {"coco": CocoData, "voc": VocData, "yolo": YoloData, "labelme": LabelmeData}


def opened(form, root, **settings):
    own_sets.WRITERS[form](root)
    return open_images(CONFIGS[form](path=str(root), **settings))


@pytest.mark.parametrize("form", CONFIGS)
def test_the_same_boxes_are_read_from_every_form(form, tmp_path):
    images = opened(form, tmp_path, mm_per_px=0.1)
    assert images.class_names == own_sets.CLASSES
    assert names_of(images, "all").sort() is None
    assert sorted(names_of(images, "all")) == sorted(own_sets.BOXES)
    for name, labels in own_sets.BOXES.items():
        image = images.load(name)
        expected = np.array([box for _, box in labels], np.float32).reshape(-1, 4)
        # YOLO's shares are rounded to doubles.
        np.testing.assert_allclose(image.boxes_px, expected, atol=1e-4)
        assert image.boxes_px.dtype == np.float32
        assert image.classes.tolist() == [own_sets.CLASSES.index(kind) for kind, _ in labels]
        assert image.classes.dtype == np.int64
        assert image.pixels.shape == own_sets.SIZE[::-1]
        np.testing.assert_array_equal(image.pixels, np.asarray(Image.open(tmp_path / name)))
        assert image.mm_per_px == 0.1
        assert image.template is None


@pytest.mark.parametrize("form", CONFIGS)
def test_the_fingerprint_follows_the_content(form, tmp_path):
    before = opened(form, tmp_path)
    again = open_images(before.cfg)
    assert before.fingerprint == again.fingerprint
    Image.new("L", own_sets.SIZE, 7).save(tmp_path / "images/c.png")
    assert open_images(before.cfg).fingerprint != before.fingerprint


@pytest.mark.parametrize("form", CONFIGS)
def test_a_damaged_image_is_named_and_can_be_left_out(form, tmp_path):
    images = opened(form, tmp_path)
    path = tmp_path / "images/b.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"images/b\.png: is no image that can be read") as caught:
        open_images(images.cfg)
    assert "'data.leave_out=[images/b.png]'" in str(caught.value)
    without = open_images(replace(images.cfg, leave_out=("images/b.png",)))
    assert "images/b.png" not in names_of(without, "all")


def test_leaving_out_what_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match=r"data\.leave_out: images/z\.png is no image"):
        opened("coco", tmp_path, leave_out=("images/z.png",))


def test_the_splits_part_no_group(tmp_path):
    names = [f"images/board{board}-{crop}.png" for board in range(12) for crop in range(3)]
    own_sets.write_images(tmp_path, names)
    (tmp_path / "classes.txt").write_text("dent\n")
    images = open_images(YoloData(path=str(tmp_path), group_characters=len("images/board00")))
    splits = {split: set(images.names(split)) for split in SPLITS}
    assert set().union(*splits.values()) == set(names)
    boards = [{name.split("-")[0] for name in members} for members in splits.values()]
    assert sum(len(board) for board in boards) == 12


def test_a_split_without_images_says_so(tmp_path):
    images = opened("yolo", tmp_path, test_folds=(), validation_folds=())
    with pytest.raises(ValueError, match=r"split=test of data=yolo holds no image"):
        names_of(images, "test")
    with pytest.raises(ValueError, match="split='moon' is not one of train, validation, test, all"):
        names_of(images, "moon")


def test_templates_are_found_by_name(tmp_path):
    for name in own_sets.BOXES:
        path = tmp_path / "good" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", own_sets.SIZE, 9).save(path)
    images = opened("coco", tmp_path, templates="good")
    assert images.has_template
    assert (images.load("images/a.png").template == 9).all()


def test_a_template_that_is_missing_or_of_another_size_is_named(tmp_path):
    (tmp_path / "good").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "good/a.png")
    with pytest.raises(ValueError, match="problems=3") as caught:
        opened("coco", tmp_path, templates="good")
    assert "good/a.png: is 8x8, its image 60x40" in str(caught.value)
    assert "images/b.png: has no template good/b.png" in str(caught.value)
    assert "images/c.png: has no template good/c.png" in str(caught.value)


def test_colour_stays_colour(tmp_path):
    own_sets.write_yolo(tmp_path)
    Image.new("RGB", own_sets.SIZE, (1, 2, 3)).save(tmp_path / "images/c.png")
    image = open_images(YoloData(path=str(tmp_path))).load("images/c.png")
    assert image.pixels.shape == (40, 60, 3)
    assert image.pixels[0, 0].tolist() == [1, 2, 3]


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.path='.*moon' is not a folder"):
        open_images(CocoData(path=str(tmp_path / "moon")))
