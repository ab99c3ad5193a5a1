import json

import numpy as np
import pytest
from PIL import Image

from kits.defect.learn_config import LearnConfig
from kits.defect.learning import LearnSettings, learn_recipe
from kits.defect.learning_files import learn_from_files
from kits.defect.line.recipe import read_recipe
from kits.defect.line.triage import open_triage

SETTINGS = LearnSettings("plate", 0.1, 0.4, flagged_share=0.04)


def part(seed, *, is_binary=False):
    """The same plate each time: other noise, another lamp, a little off its place."""
    rng = np.random.default_rng(seed)
    same = np.random.default_rng(0)
    plate = np.full((480, 560), 110.0)
    for _ in range(200):
        y, x = same.integers(0, 470), same.integers(0, 550)
        plate[y : y + same.integers(8, 30), x : x + same.integers(8, 30)] += same.normal(0, 25)
    if is_binary:
        plate = np.where(plate > 115, 255.0, 0.0)
    down, right = rng.integers(-3, 4, 2)
    seen = plate[20 + down : 404 + down, 20 + right : 532 + right]
    if not is_binary:
        seen = seen * rng.normal(1, 0.01) + rng.normal(0, 2, seen.shape)
    return seen.clip(0, 255).round().astype(np.uint8)


def parts(number, **kind):
    return {f"{seed}.png": part(seed, **kind) for seed in range(number)}


@pytest.fixture(scope="module")
def learned():
    return learn_recipe(parts(12), SETTINGS)


def test_flags_as_few_cells_of_unseen_good_parts_as_it_was_told(learned):
    triage = open_triage(learned)
    shares = [triage.look(part(seed)).flagged.mean() for seed in range(100, 130)]
    # 1440 cells, of which 4 % may be flagged.
    assert np.mean(shares) < 0.06
    assert learned.notes["flagged"]["any"] <= 0.04


@pytest.mark.parametrize("levels", [-50, 50])
def test_finds_marks_of_the_smallest_size_wherever_they_lie(learned, levels):
    triage = open_triage(learned)
    rng = np.random.default_rng(3)
    for seed in range(200, 220):
        frame = part(seed).astype(int)
        y, x = rng.integers(20, 360), rng.integers(20, 480)
        frame[y : y + 4, x : x + 4] += levels
        flagged = triage.look(frame.clip(0, 255).astype(np.uint8)).flagged
        assert flagged[y // 64 : (y + 3) // 64 + 1, x // 64 : (x + 3) // 64 + 1].any()


def test_says_what_contrast_it_needs_and_what_it_cannot_promise(learned):
    notes = learned.notes
    assert 2 < notes["contrast_levels"]["median"] < 60
    assert any("fewer than 20" in text for text in notes["cannot_promise"])
    assert any("differs by less than" in text for text in notes["cannot_promise"])
    json.dumps(notes)


def test_learns_black_and_white_parts():
    triage = open_triage(learn_recipe(parts(8, is_binary=True), SETTINGS))
    good = part(50, is_binary=True)
    assert triage.look(good).flagged.mean() <= 0.05
    bad = good.copy()
    bad[201:207, 301:307] = 255 - bad[201:207, 301:307]
    assert triage.look(bad).flagged[3, 4]


def test_names_the_image_that_is_no_good_part():
    given = parts(8)
    given["5.png"] = np.random.default_rng(1).integers(0, 255, (384, 512), np.uint8)
    with pytest.raises(ValueError, match=r"^5\.png \(\d+\.\d\) differ from 0\.png"):
        learn_recipe(given, SETTINGS)


def test_names_an_image_of_another_size_and_too_few_images():
    with pytest.raises(ValueError, match=r"5\.png has shape=\(9, 9\)"):
        learn_recipe(parts(5) | {"5.png": np.zeros((9, 9), np.uint8)}, SETTINGS)
    with pytest.raises(ValueError, match="has 3 good parts, fewer than 4; give 20"):
        learn_recipe(parts(3), SETTINGS)


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "good"
    images.mkdir()
    for name, pixels in parts(5).items():
        Image.fromarray(pixels).save(images / name)
    return images


def test_verb_writes_a_recipe_that_the_line_reads(folder, tmp_path, capsys):
    target = 120 + 80 * np.cos(np.mgrid[:400, :400] * (2 * np.pi / 20)).prod(0)
    Image.fromarray(target.astype(np.uint8)).save(tmp_path / "target.png")
    output = tmp_path / "plate.recipe"
    cfg = LearnConfig(
        images=str(folder), output=str(output), product="plate", smallest_defect_mm=0.4,
        target=str(tmp_path / "target.png"), target_kind="checker", target_pitch_mm=1.0,
        deadline_ms=250.0,
    )  # fmt: skip
    assert learn_from_files(cfg) == 0
    recipe = read_recipe(output)
    assert recipe.mm_per_px == pytest.approx(0.1, rel=1e-3)
    assert (recipe.product, recipe.deadline_ms) == ("plate", 250.0)
    assert not open_triage(recipe).look(part(0)).flagged.all()
    assert "cannot promise: 5 good parts are fewer than 20" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is there already"):
        learn_from_files(cfg)


def test_verb_refuses_optics_that_cannot_see_the_defect(folder, tmp_path, capsys):
    cfg = LearnConfig(
        images=str(folder), output=str(tmp_path / "x"), mm_per_px=0.1, smallest_defect_mm=0.1
    )
    assert learn_from_files(cfg) == 3
    assert "refused: defect_mm=0.1 is 1.00 px across" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "one of them says how large a pixel is"),
        ({"mm_per_px": 0.1, "target": "a.png"}, "one of them says how large a pixel is"),
        ({"target": "a.png"}, "target_pitch_mm=None"),
        ({"mm_per_px": 0.1, "target_kind": "rings"}, "not one of dots, checker"),
        ({"mm_per_px": -0.1}, "mm_per_px=-0.1 is not a length"),
        ({"mm_per_px": 0.1, "flagged_share": 0.9}, "flagged_share=0.9"),
    ],
)
def test_config_refuses_what_does_not_go_together(settings, told):
    with pytest.raises(ValueError, match=told):
        LearnConfig(images="x", **settings)


def test_verb_names_a_folder_that_is_none(tmp_path):
    cfg = LearnConfig(images=str(tmp_path / "none"), mm_per_px=0.1, output=str(tmp_path / "x"))
    with pytest.raises(ValueError, match=r"is not a folder; set images"):
        learn_from_files(cfg)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="has no image"):
        learn_from_files(cfg)
