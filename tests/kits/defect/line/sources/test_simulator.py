import json

import numpy as np
import pytest

from kits.defect.line.recipe import Recipe
from kits.defect.line.sources.simulator import simulate

SHAPE = (192, 256)


def recipe(**arrays):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    template = (120 + 30 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    learned = {"template": template, "low": template - 6, "high": template + 6}
    return Recipe("plate", SHAPE[1], SHAPE[0], 0.1, 0.3, arrays=learned | arrays)


def test_frames_show_the_part_a_little_moved_and_noisy_and_some_a_defect(tmp_path):
    made = []
    path, truth = simulate(recipe(), 12, tmp_path, on_frame=lambda: made.append(1))
    frames = np.load(path)
    assert frames.shape == (12, *SHAPE)
    assert len(made) == 12
    template = recipe().arrays["template"].astype(int)
    bad = {one.frame for one in truth}
    assert 0 < len(bad) < 12
    for at, frame in enumerate(frames):
        # As the part lies, up to two pixels off.
        off = min(
            np.abs(np.roll(template, (dy, dx), (0, 1)) - frame)[4:-4, 4:-4].max()
            for dy in range(-2, 3)
            for dx in range(-2, 3)
        )
        assert (off > 20) == (at in bad)
    told = json.loads((tmp_path / "truth.json").read_text())
    assert [one["frame"] for one in told] == [one.frame for one in truth]


def test_the_same_seed_gives_the_same_frames(tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        found.append(np.load(simulate(recipe(), 3, tmp_path / name, seed=5)[0]))
    assert np.array_equal(*found)


def test_a_recipe_that_has_learned_nothing_is_refused(tmp_path):
    bare = Recipe("plate", 256, 192, 0.1, 0.3)
    with pytest.raises(ValueError, match="has no 'high'; learn it"):
        simulate(bare, 3, tmp_path)
