import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

import kits.medical.data.sample as sample_package
from kits.medical.data.phantom_nodules import SAMPLE, SPLITS, sample_nodules, signed_distances


@pytest.fixture(scope="module")
def table():
    with np.load(SAMPLE, allow_pickle=False) as stored:
        return dict(stored)


def test_no_patient_of_the_sample_is_in_two_splits(table):
    owners = [set(table["patient"][table["split"] == k]) for k in range(len(SPLITS))]
    assert all(owners)
    assert sum(len(group) for group in owners) == len(set.union(*owners))


def test_the_sample_is_small_and_names_no_patient(table):
    assert SAMPLE.stat().st_size < 1_000_000
    assert b"LIDC" not in SAMPLE.read_bytes()
    assert all(column.dtype.kind in "iuf" for column in table.values())
    # Running numbers without a gap say nothing about who was left out.
    assert set(table["patient"]) == set(range(table["patient"].max() + 1))


def test_the_sample_has_every_number_of_readers_and_all_sizes(table):
    readers = table["shape"][:, 0]
    assert 150 <= len(readers) <= 260
    assert set(readers) == {1, 2, 3, 4}
    assert (table["diameter_mm"] < 6).mean() > 0.25
    assert (table["diameter_mm"] >= 10).mean() > 0.15


@pytest.mark.parametrize("split", SPLITS)
def test_every_reader_marked_something(split):
    nodules = sample_nodules(split)
    assert nodules
    for nodule in nodules:
        assert nodule.masks.any((1, 2, 3)).all()
        union = nodule.masks.any(0)
        assert all(union.any(axes).take([0, -1]).all() for axes in ((1, 2), (0, 2), (0, 1)))


def test_readers_of_the_sample_agree_as_those_of_the_whole_set():
    """LIDC's mean Dice of two readers is 0.746 where two or more marked a nodule."""
    scores = []
    for split in SPLITS:
        for nodule in sample_nodules(split):
            masks = nodule.masks
            scores += [
                2 * (masks[a] & masks[b]).sum() / (masks[a].sum() + masks[b].sum())
                for a in range(len(masks))
                for b in range(a)
            ]
    assert np.mean(scores) == pytest.approx(0.746, abs=0.03)


def test_the_attribution_lies_beside_the_masks():
    text = (Path(sample_package.__file__).parent / "ATTRIBUTION.md").read_text()
    for word in (
        "CC BY 3.0",
        "Armato",
        "915-931",
        "National Cancer Institute",
        "identify a person",
    ):
        assert word in text
    assert "Foundation for the\n  National Institutes of Health" in text


def test_a_wheel_takes_the_whole_folder_of_the_sample():
    root = Path(__file__).parents[4]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "kits" in wheel["targets"]["wheel"]["packages"]
    assert "exclude" not in wheel["targets"]["wheel"]
    assert (root / "kits/medical/data/sample/ATTRIBUTION.md").samefile(
        Path(sample_package.__file__).parent / "ATTRIBUTION.md"
    )


def test_distances_change_sign_between_the_mask_and_its_neighbours():
    mask = np.zeros((1, 5, 9, 9), bool)
    mask[0, 1:4, 2:7, 2:7] = True
    distances, pad = signed_distances(mask, np.array([2.0, 0.7, 0.7]))
    inner = distances[(slice(None), *(slice(p, -p) for p in pad))]
    assert ((inner > 0) == mask).mean() > 0.97  # corners are rounded off
    assert inner.shape == mask.shape


def test_the_facts_of_a_nodule_are_plain_numbers():
    nodule = sample_nodules("test")[0]
    assert json.dumps([nodule.number, nodule.diameter_mm, nodule.texture])
