from pathlib import Path

import nibabel
import numpy as np
import pytest

from kits.medical.data.config import MsdData, NiftiData
from kits.medical.data.load import open_cases

PUBLISHED = Path(__file__).resolve().parents[4] / "../shared/data/lung-ct-volumes-dev"
# Voxel (i, j, k) at RAS (10 - 0.5 i, 20 - 0.7 j, -30 + 2 k): stored left, posterior, superior.
LPS = np.array([[-0.5, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 2, -30], [0, 0, 0, 1]])


def volume(seed=0):
    values = np.random.default_rng(seed).integers(-1000, 200, (8, 6, 5)).astype(np.int16)
    values[0, 0, 0] = -1000
    return values


def mask():
    marked = np.zeros((8, 6, 5), np.uint8)
    marked[1:3, 2, 3] = 1
    marked[6, 4, 0] = 2
    return marked


def save(path, values, affine=LPS, **header):
    image = nibabel.Nifti1Image(values, affine)
    for key, value in header.items():
        image.header[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "anna__1_ct.nii.gz", volume())
    save(tmp_path / "anna__1_nodules.nii.gz", mask())
    return tmp_path


def load(folder, name="anna__1"):
    return open_cases(NiftiData(path=str(folder))).load(name)


def test_a_volume_lies_where_its_affine_says_in_lps(folder):
    case = load(folder)
    grid = case.volume.grid
    assert case.patient == "anna"
    assert (grid.shape, grid.spacing_mm) == ((5, 6, 8), pytest.approx((2, 0.7, 0.5)))
    # RAS (10 - 0.5, 20 - 2 * 0.7, -30 + 3 * 2) is LPS with x and y turned.
    np.testing.assert_allclose(grid.to_patient((3, 2, 1)), (-9.5, -18.6, -24))
    np.testing.assert_array_equal(case.volume.voxels, volume().transpose(2, 1, 0))
    first, second = sorted(case.nodules, key=lambda nodule: int(nodule.votes.sum()), reverse=True)
    assert first.window == (slice(3, 4), slice(2, 3), slice(1, 3))
    assert first.diameter_mm == pytest.approx((6 * 2 * 0.7 / np.pi) ** (1 / 3))
    assert second.window == (slice(0, 1), slice(4, 5), slice(6, 7))
    assert (first.num_readers, first.texture) == (1, None)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_however_it_is_stored_a_voxel_stays_in_its_place(folder, tmp_path, order, flips):
    values, affine = volume().transpose(order), LPS[:, [*order, 3]].copy()
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (values.shape[axis] - 1)
        affine[:, axis] *= -1
        values = np.flip(values, axis)
    save(tmp_path / "other" / "anna__1_ct.nii.gz", values, affine)
    marked = mask().transpose(order)
    save(tmp_path / "other" / "anna__1_nodules.nii.gz", np.flip(marked, flips), affine)
    plain, turned = load(folder), load(tmp_path / "other")
    np.testing.assert_array_equal(turned.volume.voxels, plain.volume.voxels)
    np.testing.assert_allclose(turned.volume.grid.origin_mm, plain.volume.grid.origin_mm, atol=1e-5)
    np.testing.assert_allclose(turned.volume.grid.axes, plain.volume.grid.axes, atol=1e-7)
    assert [n.window for n in turned.nodules] == [n.window for n in plain.nodules]


def test_a_rotated_volume_keeps_its_angle(tmp_path):
    angle = np.deg2rad(10)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for kind, values in (("ct", volume()), ("nodules", mask())):
        save(tmp_path / f"a_{kind}.nii.gz", values, turn @ LPS)
    grid = load(tmp_path, "a").volume.grid
    expected = (turn @ LPS @ (1, 2, 3, 1))[:3] * (-1, -1, 1)
    np.testing.assert_allclose(grid.to_patient((3, 2, 1)), expected, atol=1e-4)


def test_a_sheared_affine_is_refused(tmp_path):
    sheared = LPS.copy()
    sheared[1, 2] = 0.4
    save(tmp_path / "a_ct.nii.gz", volume(), sheared)
    save(tmp_path / "a_nodules.nii.gz", mask(), sheared)
    with pytest.raises(ValueError, match=r"a_ct.nii.gz has an affine .* not at right angles"):
        load(tmp_path, "a")


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ({"affine": None}, "has neither sform nor qform"),
        ({"sform_code": 1, "qform_code": 1, "qoffset_x": 3.0}, "an sform and a qform that differ"),
        ({"xyzt_units": 1}, "is in meter, not in mm"),
    ],
)
def test_a_header_that_leaves_the_place_open_is_refused(folder, header, rule):
    save(folder / "anna__1_ct.nii.gz", volume(), **header)
    with pytest.raises(ValueError, match=rule):
        load(folder)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (np.abs(volume()), "no Hounsfield units of a chest"),
        (np.where(volume() < 0, np.nan, 0).astype(np.float32), "that are no numbers"),
        (np.zeros((8, 6, 5, 2), np.int16), "not three axes"),
    ],
)
def test_values_that_are_no_ct_are_refused(folder, values, rule):
    save(folder / "anna__1_ct.nii.gz", values)
    with pytest.raises(ValueError, match=rf"anna__1_ct.nii.gz.*{rule}"):
        load(folder)


@pytest.mark.parametrize(
    ("values", "affine", "rule"),
    [
        (mask()[:-1], LPS, "resample the mask to its volume"),
        (mask(), LPS + np.eye(4)[:, [3, 0, 1, 2]] * 0.1, "resample the mask|not at right angles"),
        (mask() * np.float32(0.5), LPS, "no labels"),
    ],
)
def test_a_mask_of_another_grid_or_without_labels_is_refused(folder, values, affine, rule):
    save(folder / "anna__1_nodules.nii.gz", values, affine)
    with pytest.raises(ValueError, match=rf"anna__1_nodules.nii.gz.*({rule})"):
        load(folder)


def test_a_volume_without_its_mask_is_refused_before_anything_is_read(folder):
    save(folder / "bert_ct.nii.gz", volume())
    with pytest.raises(ValueError, match=r"has bert_ct but no bert_nodules.nii.gz"):
        open_cases(NiftiData(path=str(folder)))


def test_a_damaged_file_is_refused(folder):
    file = folder / "anna__1_ct.nii.gz"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"anna__1_ct.nii.gz cannot be read"):
        load(folder)


def test_padding_outside_of_the_reconstruction_becomes_air(folder):
    values = volume()
    values[0] = -3024
    save(folder / "anna__1_ct.nii.gz", values)
    assert load(folder).volume.voxels.min() == -1024


def test_lungs_and_splits_go_with_the_names(folder):
    save(folder / "anna__2_ct.nii.gz", volume(1))
    save(folder / "anna__2_nodules.nii.gz", np.zeros((8, 6, 5), np.uint8))
    save(folder / "anna__2_lungs.nii.gz", np.ones((8, 6, 5), np.uint8))
    cases = open_cases(NiftiData(path=str(folder)))
    filled = [names for s in ("train", "validation", "test") if (names := cases.names(s))]
    assert filled == [["anna__1", "anna__2"]]
    case = cases.load("anna__2")
    assert case.lungs.all()
    assert not case.nodules
    before = cases.fingerprint
    save(folder / "anna__2_ct.nii.gz", volume(2))
    assert open_cases(NiftiData(path=str(folder))).fingerprint != before


def test_the_decathlon_is_read_without_the_files_of_macos(tmp_path):
    save(tmp_path / "imagesTr" / "lung_001.nii.gz", volume())
    save(tmp_path / "labelsTr" / "lung_001.nii.gz", mask())
    (tmp_path / "imagesTr" / "._lung_001.nii.gz").write_bytes(b"Mac OS X")
    cases = open_cases(MsdData(path=str(tmp_path)))
    case = cases.load("lung_001")
    assert case.patient == "lung_001"
    assert len(case.nodules) == 2
    assert len(cases.fingerprint) == 64
    (tmp_path / "labelsTr" / "lung_001.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"lung_001.nii.gz has no labelsTr"):
        open_cases(MsdData(path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"holds no imagesTr"):
        open_cases(MsdData(path=str(tmp_path / "labelsTr")))


@pytest.mark.published_data
def test_the_development_volumes_have_their_documented_sizes():
    if not PUBLISHED.exists():
        pytest.skip("development data is not beside the project")
    cases = open_cases(NiftiData(path=str(PUBLISHED), label="gtv"))
    case = cases.load("pyradiomics_lung1")
    assert case.volume.grid.shape == (48, 286, 442)
    assert case.volume.grid.spacing_mm == pytest.approx((5, 0.570, 0.570), abs=5e-4)
    assert sum(nodule.votes.sum() for nodule in case.nodules) == 837
    lungs = cases.load("nsclc_LUNG1-001").lungs
    assert lungs.sum() == 1_879_801
