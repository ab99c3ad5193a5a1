"""Segmentations re-read by others: dcmqi (dcmtk and ITK), SimpleITK, highdicom."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from kits.medical.results.headers import save
from kits.medical.results.seg import segmentation


def points(grid, nodule):
    """Where the voxels of a mask lie, sorted, in hundredths of a millimetre."""
    start = [part.start for part in nodule.finding.window]
    return hundredths(grid.to_patient(np.argwhere(nodule.finding.mask) + start))


def hundredths(places):
    return sorted(map(tuple, np.round(np.asarray(places) * 100).astype(int).tolist()))


@pytest.mark.parametrize("with_empty_frames", [False, True])
def test_dcmqi_finds_every_voxel_where_it_was(
    grid, make_study, make_headers, dcmqi, tmp_path, with_empty_frames
):
    study = make_study(grid)
    made = segmentation(study, make_headers(grid), with_empty_frames=with_empty_frames)
    path = save(made, tmp_path / "seg.dcm")
    dcmqi("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd")
    for nodule in study.nodules:
        image = SimpleITK.ReadImage(str(tmp_path / f"{nodule.number}.nrrd"))
        voxels = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1].tolist()
        found = [image.TransformIndexToPhysicalPoint(voxel) for voxel in voxels]
        assert hundredths(found) == points(grid, nodule)
        assert np.prod(image.GetSpacing()) * len(found) == pytest.approx(
            nodule.measures.counted_volume_mm3, rel=1e-6
        )


@pytest.mark.parametrize("with_empty_frames", [False, True])
def test_highdicom_reads_the_same_masks(
    grid, make_study, make_headers, tmp_path, with_empty_frames
):
    study = make_study(grid)
    headers = make_headers(grid)
    made = segmentation(study, headers, with_empty_frames=with_empty_frames)
    read = highdicom.seg.segread(save(made, tmp_path / "seg.dcm"))
    masks = read.get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in headers],
        assert_missing_frames_are_empty=True,
        segment_numbers=[nodule.number for nodule in study.nodules],
    )
    for nodule in study.nodules:
        expected = np.zeros(grid.shape, np.uint8)
        expected[nodule.finding.window] = nodule.finding.mask
        np.testing.assert_array_equal(masks[..., nodule.number - 1], expected)
    assert set(read.get_tracking_ids()) == {(n.tracking_id, n.tracking_uid) for n in study.nodules}


@pytest.mark.parametrize("seed", range(6))
def test_any_orientation_and_spacing_is_read_back(
    make_grid, make_study, make_headers, dcmqi, tmp_path, seed
):
    random = np.random.default_rng(seed)
    row, column = np.linalg.qr(random.normal(size=(3, 3)))[0][:2]
    spacing = tuple(random.uniform((0.5, 0.4, 0.4), (5, 1, 1)))
    grid = make_grid((10, 33, 41), spacing, [*row, *column])
    study = make_study(grid, 2)
    path = save(segmentation(study, make_headers(grid)), tmp_path / "seg.dcm")
    dcmqi("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd")
    for nodule in study.nodules:
        image = SimpleITK.ReadImage(str(tmp_path / f"{nodule.number}.nrrd"))
        voxels = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1].tolist()
        found = np.array([image.TransformIndexToPhysicalPoint(voxel) for voxel in voxels])
        start = [part.start for part in nodule.finding.window]
        wanted = grid.to_patient(np.argwhere(nodule.finding.mask) + start)
        distance = np.linalg.norm(found[:, None] - wanted[None], axis=2)
        assert len(found) == len(wanted)
        assert distance.min(axis=1).max() < 1e-3
        assert distance.min(axis=0).max() < 1e-3


def test_slices_a_little_off_the_grid_are_read_all_the_same(
    plain_grid, make_study, make_headers, dcmqi, tmp_path
):
    study, headers = make_study(plain_grid), make_headers(plain_grid)
    for header, off in zip(
        headers, 0.05 * np.random.default_rng(0).uniform(-1, 1, 12), strict=True
    ):
        x, y, z = header.ImagePositionPatient
        header.ImagePositionPatient = [x, y, f"{float(z) + off:.4f}"]
    path = save(segmentation(study, headers), tmp_path / "seg.dcm")
    dcmqi("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd")
    for nodule in study.nodules:
        image = SimpleITK.ReadImage(str(tmp_path / f"{nodule.number}.nrrd"))
        found = np.count_nonzero(SimpleITK.GetArrayFromImage(image))
        assert found == np.count_nonzero(nodule.finding.mask)


def test_a_single_segment_reads_as_well(plain_grid, make_study, headers, validate, tmp_path):
    study = make_study(plain_grid, 1)
    made = segmentation(study, headers)
    assert validate(made) == []
    read = highdicom.seg.segread(save(made, tmp_path / "seg.dcm"))
    volume = read.get_volume(combine_segments=True)
    assert int(volume.array.sum()) == int(study.nodules[0].finding.mask.sum())


@pytest.mark.parametrize("with_empty_frames", [False, True])
def test_the_validator_finds_no_error(grid, make_study, make_headers, validate, with_empty_frames):
    made = segmentation(
        make_study(grid, is_phantom=True), make_headers(grid), with_empty_frames=with_empty_frames
    )
    assert validate(made) == []


def test_the_validator_sees_errors(study, headers, validate):
    made = segmentation(study, headers)
    del made.SegmentationType
    assert any("SegmentationType" in error for error in validate(made))


def test_only_slices_with_voxels_have_frames(study, headers):
    made = segmentation(study, headers)
    filled = sum(nodule.finding.mask.any(axis=(1, 2)).sum() for nodule in study.nodules)
    assert made.NumberOfFrames == filled < 12 * 3
    assert segmentation(study, headers, with_empty_frames=True).NumberOfFrames == 12 * 3


def test_every_frame_names_its_source_slice(study, headers):
    by_uid = {header.SOPInstanceUID: header for header in headers}
    made = segmentation(study, headers)
    listed = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    listed = {item.ReferencedSOPInstanceUID for item in listed}
    for frame in made.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        source = by_uid[image.ReferencedSOPInstanceUID]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert position == source.ImagePositionPatient
        assert image.ReferencedSOPInstanceUID in listed
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == headers[0].SeriesInstanceUID


def test_it_says_what_made_it_and_that_nobody_verified_it(plain_grid, make_study, headers):
    made = segmentation(make_study(plain_grid, is_phantom=True), headers)
    segment = made.SegmentSequence[0]
    method = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert method.AlgorithmName == "student"
    assert "abab" in method.AlgorithmParameters
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert "UNVERIFIED" in made.ContentDescription
    assert "UNVERIFIED" in segment.SegmentDescription
    assert "PHANTOM" in made.SeriesDescription
    assert made.QualityControlSubject == "YES"


def test_the_same_input_gives_the_same_file(study, headers, make_headers, plain_grid, tmp_path):
    first = save(segmentation(study, headers), tmp_path / "1.dcm")
    second = save(segmentation(study, make_headers(plain_grid)), tmp_path / "2.dcm")
    assert first.read_bytes() == second.read_bytes()


def test_patient_and_study_are_the_scans(study, headers, tmp_path):
    read = pydicom.dcmread(save(segmentation(study, headers), tmp_path / "seg.dcm"))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber"):
        assert read[keyword].value == headers[0][keyword].value
    assert read.FrameOfReferenceUID == headers[0].FrameOfReferenceUID


def test_a_scan_without_nodules_has_no_segmentation(plain_grid, make_study, headers):
    assert segmentation(make_study(plain_grid, 0), headers) is None


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("GBK", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
    ids=str,
)
def test_a_name_in_another_script_is_kept(
    study, make_headers, plain_grid, validate, tmp_path, character_set, name
):
    headers = make_headers(plain_grid, SpecificCharacterSet=character_set, PatientName=name)
    made = segmentation(study, headers)
    assert validate(made) == []
    assert str(pydicom.dcmread(save(made, tmp_path / "seg.dcm")).PatientName) == name


def test_headers_of_another_order_are_refused(study, headers):
    with pytest.raises(ValueError, match="mm from the grid"):
        segmentation(study, headers[::-1])


def test_too_few_headers_are_refused(study, headers):
    with pytest.raises(ValueError, match="11 headers for 12 slices"):
        segmentation(study, headers[1:])


def test_headers_of_another_series_are_refused(study, headers):
    headers[3].SeriesInstanceUID = "1.2.3"
    with pytest.raises(ValueError, match="headers are of the series"):
        segmentation(study, headers)


def test_an_empty_mask_is_refused(study, headers):
    nodule = study.nodules[0]
    empty = replace(nodule.finding, mask=np.zeros_like(nodule.finding.mask))
    study = replace(study, nodules=(replace(nodule, finding=empty),))
    with pytest.raises(ValueError, match="empty mask"):
        segmentation(study, headers)


def test_nodules_out_of_number_are_refused(study, headers):
    with pytest.raises(ValueError, match="segments count"):
        segmentation(replace(study, nodules=study.nodules[1:]), headers)
