import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from kits.defect.config import DefectTrainConfig
from kits.defect.data.image_set import LabelledImage
from kits.defect.data.load import open_images
from kits.defect.detecting import Detecting, Found, detect
from kits.defect.evaluation import assess, evaluate_run, settings_of
from kits.defect.graph import fused
from kits.defect.metrics.matching import Scored
from kits.defect.planes import planes_of
from kits.defect.smoke import shrink
from kits.defect.trained import load_module, load_run_network, read_facts

NAMES = ("scratch", "dent")


def image(name, boxes, classes, **more):
    number = len(boxes)
    return LabelledImage(
        name, np.zeros((64, 64), np.uint8), np.array(boxes, np.float32).reshape(number, 4),
        np.array(classes, np.int64), mm_per_px=0.1, **more,
    )  # fmt: skip


def found(*rows):
    rows = sorted(rows, key=lambda row: -row[1])
    boxes = np.array([box for *_, box in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    return Found(boxes, scores, np.array([kind for kind, *_ in rows], np.int64))


A, B, C = (4, 4, 24, 10), (30, 30, 50, 50), (2, 40, 12, 50)


@pytest.fixture
def four_images():
    """A found scratch, a missed dent with a false box, a clean one, a clean one rejected."""
    segment = np.array([[[4, 7], [24, 7]]], np.float32)
    return [
        Scored(
            image("a", [A], [0], lengths_mm=np.array([2.0], np.float32), segments_px=segment),
            found((0, 0.9, A)),
        ),
        Scored(image("b", [B], [1]), found((1, 0.6, C), (1, 0.2, B))),
        Scored(image("c", [], []), found((0, 0.1, A))),
        Scored(image("d", [], []), found((0, 0.8, A))),
    ]


def test_rates_of_a_case_by_hand(four_images):
    metrics = assess(four_images, 0.5, NAMES).metrics
    assert metrics["num_images"] == 4
    assert metrics["num_defects"] == 2
    assert metrics["detection_rate"] == metrics["part_detection_rate"] == 0.5
    assert metrics["detection_rate.tries"] == 2
    assert 0 < metrics["detection_rate.lower_95"] < 0.5
    assert metrics["false_reject_rate"] == 0.5
    assert 0.5 < metrics["false_reject_rate.upper_95"] < 1
    assert metrics["false_per_image"] == 0.5
    assert metrics["length_recall"] == 1
    assert metrics["f_at_iou_0.33"] == 2 / (3 + 2)
    assert set(metrics["per_class"]) == set(NAMES)
    assert metrics["map50.low"] <= metrics["map50"] <= metrics["map50.high"]


def test_confusion_of_a_case_by_hand(four_images):
    table = assess(four_images, 0.5, NAMES).confusion()
    assert table.tolist() == [[1, 0, 0], [0, 0, 1], [1, 1, 0]]


def test_only_good_images_have_a_false_reject_rate_alone(four_images):
    metrics = assess(four_images[2:], 0.5, NAMES).metrics
    assert metrics["false_reject_rate"] == 0.5
    assert "map50" not in metrics


def test_the_point_of_one_reject_in_a_hundred(four_images):
    clean = [Scored(image(f"c{k}", [], []), found((0, 0.001 * k, A))) for k in range(200)]
    found_again = [four_images[0], Scored(image("e", [B], [1]), found((1, 0.19, B)))]
    metrics = assess([*found_again, *clean], 0.5, NAMES).metrics
    # Two of 200 lie above: 0.199 and 0.198.
    assert metrics["at_1_percent_false_reject.threshold"] == pytest.approx(0.197)
    assert metrics["at_1_percent_false_reject.detection_rate"] == 0.5
    rejected = sum(
        one.found.scores[0] >= metrics["at_1_percent_false_reject.threshold"] for one in clean
    )
    assert rejected == 2


def test_large_images_are_looked_at_in_tiles():
    """A network that finds the brightest place of what it sees."""
    planes = np.zeros((1, 200, 330), np.uint8)
    planes[0, 150, 300] = planes[0, 20, 10] = 255
    sizes = []

    def network(inputs):
        tile = inputs["image"][0, 0]
        sizes.append(tile.shape)
        y, x = np.unravel_index(tile.argmax(), tile.shape)
        boxes = np.array([[[x, y, x + 1, y + 1]]], np.float32)
        return {"boxes": boxes, "scores": np.array([[[0.0, 0.9 * tile.max()]]], np.float32)}

    one = detect(planes, network, Detecting(32, tile_px=128, overlap_px=32))
    assert set(sizes) == {(128, 128)}
    assert sorted(one.boxes.tolist()) == [[10, 20, 11, 21], [300, 150, 301, 151]]
    assert one.classes.tolist() == [1, 1]


def test_a_run_leaves_what_others_need(smoke_run):
    facts = read_facts(smoke_run)
    assert facts["graph"] == "yolov7-kit"
    assert facts["planes"] == 1
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    assert {"map50", "map50_95", "f_at_iou_0.33", "per_class", "false_per_image"} <= set(metrics)
    assert metrics["split"] == "test"
    assert metrics["is_same_data_as_training"] is True
    assert not list(smoke_run.glob("model/*.pt"))


def test_the_loaded_network_is_the_fused_one(smoke_run):
    module, rng = load_module(smoke_run), np.random.default_rng(0)
    planes = rng.integers(0, 255, (1, 64, 64)).astype(np.float32)[None] / 255
    with torch.no_grad():
        expected = fused(module)(torch.from_numpy(planes))
    assert np.array_equal(
        load_run_network(smoke_run)({"image": planes})["boxes"], expected["boxes"].numpy()
    )


def test_evaluation_repeats_what_training_said(smoke_run, tmp_path):
    before = json.loads((smoke_run / "metrics.json").read_text())
    images = open_images(shrink(smoke(DefectTrainConfig())).data)
    assert evaluate_run(smoke_run, images, output=tmp_path) == before


def smoke(cfg):
    cfg.trainer.smoke = True
    return cfg


class Page(HTMLParser):
    """Which tags a page has, and which of them are still open."""

    ALONE = ("meta", "img", "br", "line", "circle", "polyline")

    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.ALONE or self.open.pop() == tag


def test_the_report_is_one_whole_page_without_scripts(smoke_run):
    text = (smoke_run / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert {"script", "link"} & set(page.tags) == set()
    assert "Smoke run" in text
    assert "http" not in text.replace("http-equiv", "")
    assert 'src="data:image/png' in text


def test_other_classes_are_refused(smoke_run, rectangles):
    with pytest.raises(ValueError, match="data=rectangles has the classes bright, dark"):
        evaluate_run(smoke_run, rectangles())


def test_templates_on_one_side_are_refused(smoke_run, rectangles):
    names = tuple(read_facts(smoke_run)["class_names"])
    with pytest.raises(ValueError, match="the images are with templates"):
        evaluate_run(smoke_run, rectangles(has_template=True, class_names=names))


def test_a_folder_that_is_no_run_is_named(tmp_path):
    for read in (read_facts, load_module):
        with pytest.raises(ValueError, match="name a finished run's folder"):
            read(tmp_path)


def test_settings_are_those_of_the_bundle(smoke_run):
    facts = read_facts(smoke_run)
    assert settings_of(facts) == replace(Detecting(32), iou=facts["nms"]["iou"])


def test_an_image_of_any_size_is_detected_in(smoke_run):
    network = load_run_network(smoke_run)
    one = detect(planes_of(np.zeros((50, 71), np.uint8)), network, Detecting(32))
    assert (one.boxes[:, 2] <= 71).all()
    assert (one.boxes[:, 3] <= 50).all()
