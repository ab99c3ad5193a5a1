import numpy as np
import pydicom
import pytest

from kits.medical.results.headers import save
from kits.medical.results.key_image import key_images
from kits.medical.results.picture import render


@pytest.fixture
def voxels(plain_grid):
    noise = np.random.default_rng(0).normal(0, 30, plain_grid.shape)
    return (noise - 850).astype(np.int16)


def test_the_validator_finds_no_error(grid, make_study, make_headers, validate):
    voxels = np.full(grid.shape, -850, np.int16)
    for made in key_images(make_study(grid, is_phantom=True), make_headers(grid), voxels):
        assert validate(made) == []


def test_a_nodule_has_an_image_that_names_its_slice(study, headers, voxels):
    images = key_images(study, headers, voxels)
    assert [made.InstanceNumber for made in images] == [1, 2, 3]
    assert len({made.SOPInstanceUID for made in images}) == 3
    for made, nodule in zip(images, study.nodules, strict=True):
        source = made.SourceImageSequence[0].ReferencedSOPInstanceUID
        assert source == headers[nodule.measures.slice_index].SOPInstanceUID
        assert made.ImageComments.startswith("UNVERIFIED - RESEARCH USE; " + nodule.tracking_id)


def test_a_scan_without_nodules_has_one_image_that_says_so(
    plain_grid, make_study, headers, voxels, validate
):
    (made,) = key_images(make_study(plain_grid, 0), headers, voxels)
    assert validate(made) == []
    assert "No nodule reported" in made.ImageComments


def test_burned_in_text_names_nobody(study, headers, voxels):
    made = key_images(study, headers, voxels)[0]
    assert made.BurnedInAnnotation == "NO"
    for name in ("Doe", "P-17", "2020"):
        assert name not in made.ImageComments


def test_what_the_scanner_burned_in_is_not_denied(study, make_headers, plain_grid, voxels):
    headers = make_headers(plain_grid, BurnedInAnnotation="YES")
    assert key_images(study, headers, voxels)[0].BurnedInAnnotation == "YES"


def test_lossy_sources_stay_marked(study, make_headers, plain_grid, voxels, validate):
    headers = make_headers(
        plain_grid, LossyImageCompression="01", LossyImageCompressionRatio="12.5",
        LossyImageCompressionMethod="ISO_15444_1",
    )  # fmt: skip
    made = key_images(study, headers, voxels)[0]
    assert (made.LossyImageCompression, made.LossyImageCompressionRatio) == ("01", 12.5)
    assert validate(made) == []


def test_the_same_input_gives_the_same_file(study, headers, voxels, tmp_path):
    files = [
        save(key_images(study, headers, voxels)[1], tmp_path / f"{name}.dcm").read_bytes()
        for name in "ab"
    ]
    assert files[0] == files[1]


def test_the_file_holds_the_picture(study, headers, voxels, tmp_path):
    made = key_images(study, headers, voxels)[0]
    read = pydicom.dcmread(save(made, tmp_path / "image.dcm"))
    nodule = study.nodules[0]
    index = nodule.measures.slice_index
    np.testing.assert_array_equal(read.pixel_array, render(study, nodule, voxels[index], index))


def test_voxels_of_another_grid_are_refused(study, headers, voxels):
    with pytest.raises(ValueError, match="voxels have shape"):
        key_images(study, headers, voxels[1:])
