import json
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from kits.medical import evaluation, evaluation_report, looking
from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.votes import box_of, merge
from kits.medical.evaluate import tables
from kits.medical.geometry import Grid, Volume

SHAPE = (16, 24, 24)
AXES = np.eye(3)[::-1]


def ball(shape, centre, radius):
    z, y, x = np.ogrid[tuple(slice(0, size) for size in shape)]
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def nodule(name, shape, centre, radius, readers=4, **more):
    """Readers who differ by where they see the middle."""
    shifts = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, -1, 0)][:readers]
    votes = merge([ball(shape, np.add(centre, shift), radius) for shift in shifts])
    window = box_of(votes)
    return TrueNodule(name, window, votes[window], readers, 2.0 * radius, **more)


def patch(name, radius=4, *, readers=4, texture=5.0):
    centre = (8, 12, 12)
    voxels = np.where(ball(SHAPE, centre, radius), 0, -850).astype(np.int16)
    volume = Volume(Grid(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXES), voxels)
    true = nodule(name, SHAPE, centre, radius, readers, texture=texture)
    return Case(name, name, volume, (true,), extent="patch", intensity="slice")


def chest(name, centres, *, excluded=()):
    """Two lungs of air in a trunk; solid balls in them."""
    shape = (40, 64, 80)
    voxels = np.full(shape, -1000, np.int16)
    voxels[:, 8:56, 6:74] = 40
    for columns in (slice(12, 36), slice(44, 68)):
        voxels[4:36, 14:50, columns] = -850
    for centre in (*centres, *excluded):
        voxels[ball(shape, centre, 3)] = 20
    grid = Grid(shape, (2.5, 2.5, 2.5), (-100.0, -80.0, 30.0), AXES)
    nodules = [nodule(f"n{k}", shape, centre, 3) for k, centre in enumerate(centres)]
    nodules += [nodule(f"x{k}", shape, centre, 3, readers=1) for k, centre in enumerate(excluded)]
    return Case(name, name, Volume(grid, voxels), tuple(nodules), extent="scan", is_phantom=True)


class Memory:
    """Cases that a test made."""

    name, fingerprint, max_readers = "phantom", "0" * 64, 4

    def __init__(self, *cases):
        self.cases = {case.name: case for case in cases}

    def names(self, split):
        return sorted(self.cases) if split == "test" else []

    def load(self, name):
        return self.cases[name]


def bright(inputs):
    """A network that calls a nodule what is dense, and dark 6 voxels off on all sides."""
    image = inputs["image"]
    around = [np.roll(image, step, axis) for axis in (3, 4) for step in (-6, 6)]
    alone = gaussian_filter(image - np.max(around, axis=0), (0, 0, 1, 1, 1))[:, :, ::2, ::2, ::2]
    texture = np.zeros((len(image), 3, *alone.shape[2:]), np.float32)
    texture[:, 0] = 4
    return {"mask": (image + 400) / 20, "heat": (alone - 400) / 60, "texture": texture}


def blind(inputs):
    outputs = bright(inputs)
    return {**outputs, "mask": np.full_like(outputs["mask"], -9.0)}


def see(*cases, network=bright):
    memory = Memory(*cases)
    return looking.look_at(memory, memory.names("test"), looking.Looker(network, 8))


def test_patches_are_judged_beside_their_readers_and_have_no_false_positives():
    found = evaluation.assess(see(patch("a", 2.6), patch("b", 4), patch("c", 6, readers=3)))
    metrics = found.metrics
    assert metrics["num_nodules"] == metrics["num_patients"] == 3
    assert metrics["num_nodules.under_6_mm"] == metrics["num_nodules.over_10_mm"] == 1
    ratio = metrics["dice_vs_others"] / metrics["human_dice_vs_others"]
    assert metrics["human_normalised_dice"] == pytest.approx(ratio)
    # The network sees the ball itself, around which readers scatter.
    assert 1 < metrics["human_normalised_dice"] <= metrics["oracle_normalised_dice"]
    assert metrics["baseline_threshold_normalised_dice"] == metrics["human_normalised_dice"]
    assert "cpm" not in metrics
    assert "texture_accuracy" not in metrics


def test_a_nodule_that_too_few_readers_marked_is_left_out():
    metrics = evaluation.assess(see(patch("a"), patch("b", readers=2))).metrics
    assert (metrics["num_nodules"], metrics["num_excluded_nodules"]) == (1, 1)


def test_a_network_that_draws_nothing_scores_nothing():
    metrics = evaluation.assess(see(patch("a"), network=blind)).metrics
    assert metrics["human_normalised_dice"] == 0
    assert metrics["volume_bias_percent"] == -100


def test_one_reader_gives_a_dice_and_no_human():
    memory = Memory(patch("a", readers=1))
    memory.max_readers = 1
    seen = looking.look_at(memory, ["a"], looking.Looker(bright, 8))
    metrics = evaluation.assess(seen).metrics
    assert metrics["dice_vs_one_reader"] == 1
    assert metrics["dice_vs_one_reader.6_to_10_mm.low"] == 1
    assert not [key for key in metrics if key.startswith(("dice_vs_others", "human"))]


def test_findings_of_scans_are_counted_against_their_price():
    scans = [
        chest("one", [(14, 30, 22)], excluded=[(26, 30, 56)]),
        chest("two", [(20, 24, 24), (26, 36, 58)]),
        chest("none", []),
    ]
    found = evaluation.assess(see(*scans))
    metrics = found.metrics
    assert (metrics["num_scans"], metrics["num_targets"]) == (3, 3)
    assert metrics["num_excluded_nodules"] == 1
    assert {scan.name for scan in found.seen.scans} == {"one", "two", "none"}
    assert metrics["sensitivity_at_8_fp"] == 1
    assert metrics["cpm"] <= 1
    assert "conformal_5_percent.threshold" not in metrics
    # Told the place, and found by itself: the same masks, here.
    assert metrics["found_only.dice_vs_others"] == pytest.approx(metrics["dice_vs_others"], abs=0.1)
    assert metrics["num_nodules"] == metrics["found.num_nodules"] == 3


def test_a_case_that_cannot_be_searched_is_named():
    empty = chest("empty", [])
    hollow = Volume(empty.volume.grid, np.full(empty.volume.voxels.shape, 40, np.int16))
    case = Case("hollow", "p", hollow, (), extent="scan")
    with pytest.raises(ValueError, match="case hollow: "):
        see(case)


def test_splits_that_do_not_exist_or_are_empty_are_refused():
    memory = Memory(patch("a"))
    assert evaluation.names_of(memory, "all") == ["a"]
    with pytest.raises(ValueError, match="split='dev' is not one of train, validation, test, all"):
        evaluation.names_of(memory, "dev")
    with pytest.raises(ValueError, match=r"split=train of data=phantom has no cases; set split"):
        evaluation.names_of(memory, "train")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder whose network is `bright`."""
    facts = {"multiple": 8, "mask_threshold": 0.5, "model": "<b>student</b>", "data": "phantom"}
    facts |= {"threshold": 0.5, "data_sha256": "0" * 64}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps(facts))
    (tmp_path / "config.yaml").write_text("trainer: {smoke: true}\n")
    monkeypatch.setattr("kits.medical.trained.load_run_network", lambda run: bright)
    return tmp_path


def test_a_run_gets_numbers_and_a_page_that_are_the_same_again(run, tmp_path):
    memory = Memory(patch("a", 2.6), patch("b"), chest("one", [(14, 30, 22)]))
    first = evaluation.evaluate_run(run, memory, "test", tmp_path / "first")
    again = evaluation.evaluate_run(run, memory, "test", tmp_path / "again")
    assert first == again == json.loads((tmp_path / "first" / "metrics.json").read_text())
    page = (tmp_path / "first" / "report.html").read_text()
    assert page == (tmp_path / "again" / "report.html").read_text()
    assert not re.search(r"<script|https?://", page.replace("http://www.w3.org", ""))
    assert "&lt;b&gt;student" in page
    assert "Smoke run" in page
    assert "Research use, unverified" in page
    assert "The scans are phantoms" in page
    assert "Seen in training" not in page
    assert page.count('role="img"') == 3 + 3
    assert len({*re.findall(r' id="([^"]+)"', page)}) == len(re.findall(r' id="([^"]+)"', page))


def test_a_split_that_was_trained_on_is_marked_so(run):
    metrics = evaluation.evaluate_run(run, Memory(patch("a")), "all")
    assert metrics["is_same_data_as_training"]
    assert "Seen in training" in (run / "report.html").read_text()


def test_what_is_printed_has_the_human_and_the_price_beside_each_number(run):
    metrics = evaluation.evaluate_run(run, Memory(chest("one", [(14, 30, 22)])), "test")
    dice, findings = tables(metrics)
    assert [column.header for column in dice.columns][2:5] == ["model", "human", "ratio"]
    assert findings.columns[0].header == "FP/scan, at most"
    assert findings.row_count == 8
    metrics = evaluation.evaluate_run(run, Memory(patch("a")), "test")
    assert len(tables(metrics)) == 1


def test_a_missing_number_is_a_dash():
    assert evaluation_report.number(None) == evaluation_report.share(None) == "–"
    assert evaluation_report.interval({}, "cpm") == ""
