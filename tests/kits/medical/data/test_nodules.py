import csv
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kits.medical.data.config import NodulesData
from kits.medical.data.load import open_cases
from kits.medical.data.split import fold_of, split_of

PUBLISHED = Path(__file__).resolve().parents[4] / "../shared/data/lidc-nodules-dev"
FIELDS = "name patient readers pixel_spacing_mm slice_spacing_mm texture malignancy".split()


def write_folder(folder, *, patients=("p0", "p1", "p2"), size=8, depth=4, table=None):
    """A folder of the form with one nodule of three readers for each patient."""
    for kind in ("ct", "readers"):
        (folder / kind).mkdir(parents=True)
    rows = []
    for number, patient in enumerate(patients):
        shades = np.arange(depth * size * size, dtype=np.uint8).reshape(depth * size, size)
        votes = np.zeros((depth, size, size), np.uint8)
        votes[1:3, 2:5, 3:6] = 0b111
        votes[1, 2, 2] = 0b001
        votes[1, 1, 3] = 0b011
        Image.fromarray(shades).save(folder / "ct" / f"{patient}_n.png")
        Image.fromarray(votes.reshape(-1, size)).save(folder / "readers" / f"{patient}_n.png")
        rows.append([f"{patient}_n", patient, 3, 0.5, 2.0, 5.0 - number, ""])
    with (folder / "nodules.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FIELDS, *(table or rows)])
    return folder


def test_a_patch_has_its_grid_its_votes_and_its_own_scale(tmp_path):
    cases = open_cases(NodulesData(path=str(write_folder(tmp_path / "data"))))
    case = cases.load("p1_n")
    assert case.patient == "p1"
    assert (case.extent, case.intensity) == ("patch", "slice")
    assert case.volume.grid.shape == (4, 8, 8)
    assert case.volume.grid.spacing_mm == (2.0, 0.5, 0.5)
    np.testing.assert_array_equal(case.volume.grid.to_patient((1, 0, 0)), [0, 0, 2])
    np.testing.assert_array_equal(case.volume.grid.to_patient((0, 0, 1)), [0.5, 0, 0])
    assert case.volume.voxels.dtype == np.int16
    assert case.volume.voxels.max() == 400
    (nodule,) = case.nodules
    assert nodule.window == (slice(1, 3), slice(1, 5), slice(2, 6))
    assert nodule.num_readers == 3
    assert (nodule.texture, nodule.malignancy) == (4.0, None)
    assert [nodule.reader(number).sum() for number in range(4)] == [20, 19, 18, 0]
    # Two of three readers are a consensus: 18 voxels of all, one of two; 0.5 mm3 each.
    assert nodule.diameter_mm == pytest.approx((6 * 19 * 0.5 / np.pi) ** (1 / 3))


@pytest.mark.parametrize("form", ["zip", "folder with zip", "zip with a top folder"])
def test_a_zip_is_the_same_data_as_its_folder(tmp_path, form):
    folder = write_folder(tmp_path / "data")
    packed = tmp_path / "packed" / "some.zip"
    packed.parent.mkdir()
    top = Path("top") if form == "zip with a top folder" else Path()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, top / file.relative_to(folder))
    path = packed.parent if form == "folder with zip" else packed
    plain = open_cases(NodulesData(path=str(folder)))
    cases = open_cases(NodulesData(path=str(path)))
    assert cases.fingerprint == plain.fingerprint
    np.testing.assert_array_equal(
        cases.load("p0_n").volume.voxels, plain.load("p0_n").volume.voxels
    )


def test_the_fingerprint_is_of_the_content(tmp_path):
    folder = write_folder(tmp_path / "data")
    before = open_cases(NodulesData(path=str(folder))).fingerprint
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert open_cases(NodulesData(path=str(moved))).fingerprint == before
    Image.fromarray(np.full((32, 8), 7, np.uint8)).save(moved / "ct" / "p0_n.png")
    assert open_cases(NodulesData(path=str(moved))).fingerprint != before


def test_patients_are_in_one_split_by_the_sha1_of_their_name(tmp_path):
    patients = [f"p{number}" for number in range(20)]
    cases = open_cases(NodulesData(path=str(write_folder(tmp_path / "data", patients=patients))))
    cfg = NodulesData(path="x")
    found = {split: cases.names(split) for split in ("train", "validation", "test")}
    every = [name for names in found.values() for name in names]
    assert sorted(every) == sorted(f"{patient}_n" for patient in patients)
    for split, names in found.items():
        assert names == sorted(names)
        assert {split_of(name.removesuffix("_n"), cfg) for name in names} <= {split}
    assert [fold_of(f"LIDC-IDRI-000{number}") for number in (1, 4)] == [8, 0]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (["../x", "p", 3, 0.5, 2.0, 5, 3], "line 2: name='../x' is not a plain file name"),
        (["p0_n", "", 3, 0.5, 2.0, 5, 3], "line 2: patient is empty"),
        (["p0_n", "p", 5, 0.5, 2.0, 5, 3], "line 2: readers='5' is not 1 to 4"),
        (["p0_n", "p", 3, 0, 2.0, 5, 3], "line 2: a spacing is not a positive"),
        (["p0_n", "p", 3, "wide", 2.0, 5, 3], "line 2: pixel_spacing_mm='wide' is no number"),
        (["gone", "p", 3, 0.5, 2.0, 5, 3], "has no ct/gone.png"),
    ],
)
def test_a_broken_table_names_the_line_and_the_rule(tmp_path, row, rule):
    folder = write_folder(tmp_path / "data", table=[row])
    with pytest.raises(ValueError, match=rule):
        open_cases(NodulesData(path=str(folder)))


@pytest.mark.parametrize(
    ("file", "image", "rule"),
    [
        ("readers", np.full((32, 8), 16, np.uint8), "value=16"),
        ("readers", np.full((32, 8), 8 + 7, np.uint8), "says 3 readers"),
        ("readers", np.zeros((32, 8), np.uint8), "is empty"),
        ("readers", np.ones((24, 8), np.uint8), "shape of its patch"),
        ("ct", np.zeros((30, 8), np.uint8), "30 rows of 8"),
        ("ct", np.zeros((32, 8, 3), np.uint8), "mode=RGB"),
    ],
)
def test_a_broken_image_names_the_file_and_the_rule(tmp_path, file, image, rule):
    folder = write_folder(tmp_path / "data")
    Image.fromarray(image).save(folder / file / "p0_n.png")
    with pytest.raises(ValueError, match=rf"{file}/p0_n\.png.*{rule}"):
        open_cases(NodulesData(path=str(folder))).load("p0_n")


def test_a_folder_of_another_form_says_what_is_wanted(tmp_path):
    with pytest.raises(ValueError, match=r"holds no nodules.csv and 0 zip files; set data.path"):
        open_cases(NodulesData(path=str(tmp_path)))


def test_folds_of_two_splits_are_refused(tmp_path):
    cfg = NodulesData(path=str(write_folder(tmp_path / "data")), validation_folds=(1, 2))
    with pytest.raises(ValueError, match=r"share \[1\]"):
        open_cases(cfg).names("test")


@pytest.mark.published_data
def test_the_development_patches_have_their_documented_counts():
    if not PUBLISHED.exists():
        pytest.skip("development data is not beside the project")
    cases = open_cases(NodulesData(path=str(PUBLISHED)))
    names = [name for split in ("train", "validation", "test") for name in cases.names(split)]
    loaded = [cases.load(name) for name in names]
    assert len(loaded) == 606
    assert len({case.patient for case in loaded}) == 335
    assert sum(case.volume.grid.shape[0] for case in loaded) == 4260
    diameters = [case.nodules[0].diameter_mm for case in loaded]
    np.testing.assert_allclose(
        [min(diameters), np.median(diameters), max(diameters)], [3.4, 6.9, 32.5], atol=0.05
    )
    assert [sum(case.nodules[0].num_readers == n for case in loaded) for n in (3, 4)] == [208, 398]
