"""Headers as hospitals have them: what breaks the standard must not break the report."""

from io import BytesIO

import pydicom
import pytest

from kits.medical.results.headers import check_headers, new_object, save


@pytest.fixture
def as_read(make_headers, plain_grid):
    """Headers that went through files, with changes that pydicom would not write by itself."""

    def read(**changes):
        found = []
        with pydicom.config.disable_value_validation():
            for header in make_headers(plain_grid, **changes):
                header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
                header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
                file = BytesIO()
                header.save_as(file, enforce_file_format=True)
                found.append(pydicom.dcmread(BytesIO(file.getvalue())))
        return found

    return read


@pytest.mark.parametrize(
    ("keyword", "written", "expected"),
    [
        ("PatientSex", "female", ""),
        ("StudyDate", "1999.01.31", "19990131"),
        ("StudyDate", "20201399", ""),
        ("StudyTime", "12:30:00", "123000"),
        ("PatientBirthDate", "", ""),
    ],
)
def test_what_breaks_the_standard_is_mended_or_left_empty(
    study, as_read, validate, keyword, written, expected
):
    headers = as_read(**{keyword: written})
    with pydicom.config.disable_value_validation():
        made = new_object(study, headers, "sr")
    assert made[keyword].value == expected


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("keyword", ["AccessionNumber", "StudyID", "PatientID"])
def test_what_the_archive_knows_the_study_by_is_never_changed(study, as_read, tmp_path, keyword):
    made = new_object(study, as_read(**{keyword: "X" * 80}), "sr")
    read = pydicom.dcmread(save(made, tmp_path / "made.dcm"))
    assert read[keyword].value == "X" * 80


def test_optional_facts_that_break_the_standard_are_left_out(study, as_read):
    headers = as_read(PatientAge="64")
    with pydicom.config.disable_value_validation():
        assert "PatientAge" not in new_object(study, headers, "sr")


def test_a_value_that_cannot_be_read_is_left_out(study, headers):
    bad = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("PatientWeight"), "DS", 4, b"70,5", 0, is_implicit_VR=False,
        is_little_endian=True,
    )  # fmt: skip
    headers[0]._dict[bad.tag] = bad
    assert "PatientWeight" not in new_object(study, headers, "sr")


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_an_unknown_character_set_becomes_one_that_holds_all(study, headers, make_headers):
    with pydicom.config.disable_value_validation():
        headers[0].SpecificCharacterSet = "latin1"
    assert new_object(study, headers, "sr").SpecificCharacterSet == "ISO_IR 192"


def test_slices_may_lie_as_far_off_the_grid_as_reading_forgives(study, headers):
    x, y, z = headers[4].ImagePositionPatient
    headers[4].ImagePositionPatient = [x, float(y) + 0.1, float(z) + 0.05]
    check_headers(study, headers)
    headers[4].ImagePositionPatient = [x, y, float(z) + 0.6]
    with pytest.raises(ValueError, match=r"lie up to 0\.600 mm from the grid"):
        check_headers(study, headers)


def test_headers_of_another_size_are_refused(study, headers):
    headers[0].Rows = 41
    with pytest.raises(ValueError, match="rows and columns"):
        check_headers(study, headers)


def test_series_are_apart_and_numbered_after_the_scans(study, headers):
    made = [new_object(study, headers, kind) for kind in ("seg", "sr", "image")]
    assert [one.SeriesNumber for one in made] == [391, 392, 393]
    assert len({one.SeriesInstanceUID for one in made}) == 3
    assert {one.StudyInstanceUID for one in made} == {headers[0].StudyInstanceUID}
