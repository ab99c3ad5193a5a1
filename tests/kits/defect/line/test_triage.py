from dataclasses import replace

import numpy as np
import pytest

from kernels.triage import block_means
from kits.defect.line.envelope import Envelope, RidgeMap
from kits.defect.line.recipe import Limits, Recipe, read_recipe, write_recipe
from kits.defect.line.triage import open_triage

LIMITS = Limits(
    outside_blocks=1, outside_levels=20, slight_blocks=30, slight_levels=8, ridge_blocks=8,
    ridge_contrasts=(8, 8, 8, 8), stain_levels=3.0, mismatch_levels=10.0,
)  # fmt: skip


def plate(seed=0):
    rng = np.random.default_rng(seed)
    part = np.full((300, 330), 120.0)
    for _ in range(80):
        y, x = rng.integers(0, 290), rng.integers(0, 320)
        part[y : y + rng.integers(8, 30), x : x + rng.integers(8, 30)] += rng.normal(0, 25)
    return part.clip(20, 230)


def view(down=0, right=0, seed=1):
    part = plate()[20 - down : 276 - down, 20 - right : 310 - right]
    return (part + np.random.default_rng(seed).normal(0, 1, part.shape)).round().astype(np.uint8)


def recipe(**changes):
    template = view(seed=0)
    means = block_means(template).astype(int)
    low, high = (means - 6).clip(0, 255), (means + 6).clip(0, 255)
    low[-1], low[:, -1], high[-1], high[:, -1] = 0, 0, 255, 255
    envelope = Envelope(low.astype(np.uint8), high.astype(np.uint8))
    envelope = RidgeMap.of(template).mark(envelope, LIMITS.ridge_contrasts)
    given = {
        "template": template,
        "low": envelope.low,
        "high": envelope.high,
        "stain_levels": np.zeros((4, 5), np.float32),
    }
    size = {"width_px": 290, "height_px": 256, "mm_per_px": 0.1, "smallest_defect_mm": 0.2}
    return Recipe("plate", limits=LIMITS, arrays=given, **(size | changes))


@pytest.fixture
def triage(tmp_path):
    write_recipe(recipe(), tmp_path / "plate.recipe")
    return open_triage(read_recipe(tmp_path / "plate.recipe"))


@pytest.mark.parametrize("move", [(0, 0), (3, -5), (-8, 12)])
def test_flags_no_cell_of_a_good_part_wherever_it_lies(triage, move):
    cells = triage.look(view(*move, seed=4))
    assert not cells.flagged.any()
    assert cells.scores.max() < 1
    assert cells.shift_px == pytest.approx((move[1], move[0]), abs=0.6)


def pit(frame):
    frame[100:103, 201:204] -= 60


def scratch(frame):
    for k in range(40):
        frame[70 + k // 3 : 73 + k // 3, 200 + k] += 30


def stain(frame):
    frame[64:128, 192:256] += 5


@pytest.mark.parametrize("damage", [pit, scratch, stain])
@pytest.mark.parametrize("move", [(0, 0), (2, -3)])
def test_flags_the_cells_of_a_defect_and_no_others(triage, damage, move):
    frame = view(*move, seed=6)
    damage(frame)
    flagged = triage.look(frame).flagged
    assert flagged[1, 3]
    flagged[0:3, 2:5] = False
    assert not flagged.any()


@pytest.mark.parametrize("lamp", [0.85, 0.97, 1.0, 1.04, 1.1])
def test_a_lamp_that_is_brighter_or_darker_flags_nothing(triage, lamp):
    frame = (view(1, 2, seed=6) * lamp).round().astype(np.uint8)
    assert not triage.look(frame).flagged.any()
    frame[100:103, 201:204] -= 60
    assert triage.look(frame).flagged[1, 3]


def test_a_lamp_is_made_up_for_as_far_as_the_recipe_says(tmp_path):
    limits = replace(LIMITS, most_gain=1.0, mismatch_levels=255.0)
    write_recipe(replace(recipe(), limits=limits), tmp_path / "strict.recipe")
    strict = open_triage(read_recipe(tmp_path / "strict.recipe"))
    frame = (view(seed=4) * 1.1).round().clip(0, 255).astype(np.uint8)
    assert strict.look(frame).flagged.mean() > 0.5


def test_says_that_there_is_no_such_part(triage):
    with pytest.raises(ValueError, match=r"mismatch=.* there is no part of this product"):
        triage.look(np.random.default_rng(1).integers(0, 255, (256, 290), np.uint8))
    assert not triage.look(view(2, 2)).flagged.any()


def test_refuses_a_frame_of_another_size(triage):
    with pytest.raises(ValueError, match=r"the recipe is for \(256, 290\)"):
        triage.look(np.zeros((256, 256), np.uint8))


def test_refuses_a_recipe_that_learned_nothing():
    given = recipe()
    with pytest.raises(ValueError, match=r"arrays\['template'\] is none"):
        open_triage(replace(given, arrays={}))
    other = dict(given.arrays) | {"low": np.zeros((3, 3), np.uint8)}
    with pytest.raises(ValueError, match=r"arrays\['low'\] is uint8 of shape=\(3, 3\)"):
        open_triage(replace(given, arrays=other))
