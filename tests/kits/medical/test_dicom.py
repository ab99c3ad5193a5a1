"""A folder becomes a scan: order, choice, facts, and the days between two scans."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.medical.healthy import Form, forms, make_series
from kits.medical.dicom import Refusal, interval_days, read_scan
from kits.medical.pixels import AIR_HU
from kits.medical.series import is_sharp

FORM = Form()


def write(folder, form=FORM, change=None, series=1):
    made = make_series(form, series=series)
    for _, one in made.slices:
        if change is not None:
            change(one)
    folder.mkdir(exist_ok=True)
    return made.write(folder)


def setting(**values):
    def change(one):
        for keyword, value in values.items():
            setattr(one, keyword, value)

    return change


def test_names_and_instance_numbers_change_nothing(tmp_path):
    first = read_scan(make_series(Form()).write(tmp_path))
    rng = np.random.default_rng(0)
    for turn in range(3):
        series = make_series(Form())
        for _, one in series.slices:
            one.InstanceNumber = int(rng.integers(1, 99))
        order = rng.permutation(len(series.files))
        contents = list(series.files.values())
        series.files = {f"{turn}/{rng.bytes(4).hex()}": contents[at] for at in order}
        folder = tmp_path / str(turn)
        folder.mkdir()
        scan = read_scan(series.write(folder))
        assert scan.volume.voxels.tobytes() == first.volume.voxels.tobytes()
        assert scan.volume.grid.origin_mm == first.volume.grid.origin_mm
        np.testing.assert_array_equal(scan.volume.grid.axes, first.volume.grid.axes)
        uids = [[str(one.SOPInstanceUID) for one in it.datasets] for it in (first, scan)]
        assert uids[0] == uids[1]


def test_threads_and_progress_change_nothing(tmp_path):
    folder, told = write(tmp_path), []
    scan = read_scan(folder, threads=3, progress=lambda *what: told.append(what))
    np.testing.assert_array_equal(scan.volume.voxels, read_scan(folder, threads=1).volume.voxels)
    assert told[:1] == [("headers", 1 / 16)]
    assert told[-1:] == [("pixels", 1.0)]


def test_the_scan_tells_its_facts(tmp_path):
    scan = read_scan(write(tmp_path, change=setting(ContrastBolusAgent="Iohexol", StationName="S")))
    assert (scan.slice_thickness_mm, scan.kernel, scan.contrast) == (1.25, "BONE", "Iohexol")
    assert scan.source.patient_name == "Self^Made"
    assert scan.source.study_date == "20260301"
    assert scan.source.tube_kv == 120
    assert "contrast agent: Iohexol" in scan.notes
    assert scan.datasets[3].StationName == "S"
    assert "PixelData" not in scan.datasets[3]
    assert scan.files[0].is_relative_to(tmp_path)


def test_names_in_chinese_are_read(tmp_path):
    scan = read_scan(
        write(tmp_path, change=setting(SpecificCharacterSet="GB18030", PatientName="王^小东"))
    )
    assert scan.source.patient_name == "王^小东"


def test_datasets_lie_where_their_slices_do(tmp_path):
    scan = read_scan(write(tmp_path, forms(8)[7]))
    for number, one in enumerate(scan.datasets):
        place = scan.volume.grid.to_patient(np.array([number, 0, 0]))
        np.testing.assert_allclose(place, np.array(one.ImagePositionPatient, float), atol=1e-4)


def test_padding_and_values_below_air_become_air(tmp_path):
    series = make_series(Form(is_signed=True, bits_stored=16, intercept=0))
    for _, one in series.slices:
        stored = np.frombuffer(one.PixelData, "<i2").copy()
        stored[:7] = -3024
        stored[7:9] = -1030
        one.PixelData = stored.tobytes()
        one.add_new("PixelPaddingValue", "SS", -3024)
    scan = read_scan(series.write(tmp_path))
    assert (scan.volume.voxels[:, 0, :9] == AIR_HU).all()
    assert "112 padded voxels were set to -1024 HU" in scan.notes
    assert "32 voxels below -1024 HU were set to it" in scan.notes


def test_the_best_series_is_chosen_and_the_others_are_named(tmp_path):
    thick = replace(Form(), spacing_mm=(2.5, 0.75, 0.75), thickness_mm=2.5, shape=(10, 40, 44))
    write(tmp_path, thick, setting(SeriesDescription="thick"), series=2)
    soft = Form(kernel="STANDARD", shape=(20, 40, 44))
    write(tmp_path, soft, setting(SeriesDescription="soft"), series=3)
    lung = replace(soft, kernel="LUNG")
    write(tmp_path, lung, setting(SeriesDescription="lung"), series=4)
    write(tmp_path, Form(), setting(SeriesDescription="mip", ImageType=["DERIVED", "SECONDARY"]), 5)
    scan = read_scan(tmp_path)
    assert scan.source.series_description == "lung"
    reasons = "\n".join(scan.choice.reasons)
    assert "series 4 (lung): 20 slices of 1.25 mm" in reasons
    assert "not series 2 (thick)" in reasons
    assert "not series 3 (soft)" in reasons
    assert "[derived]" in reasons


def test_a_short_stack_is_not_chosen_for_its_kernel(tmp_path):
    write(tmp_path, Form(shape=(12, 40, 44), kernel="LUNG"), series=2)
    write(tmp_path, Form(shape=(20, 40, 44), kernel="STANDARD"), series=3)
    assert read_scan(tmp_path).kernel == "STANDARD"


def test_a_broken_series_is_passed_over_and_said(tmp_path):
    broken = make_series(Form(kernel="LUNG"), series=2)
    del broken.files[broken.slices[5][0]]
    broken.write(tmp_path)
    write(tmp_path, Form(kernel="STANDARD"), series=3)
    scan = read_scan(tmp_path)
    assert scan.kernel == "STANDARD"
    assert "[missing_slices]" in scan.choice.reasons[-1]


def test_a_named_series_is_taken(tmp_path):
    write(tmp_path, Form(kernel="LUNG"), series=2)
    write(tmp_path, Form(kernel="STANDARD"), series=3)
    uid = make_series(Form(), series=3).slices[0][1].SeriesInstanceUID
    assert read_scan(tmp_path, uid).kernel == "STANDARD"
    with pytest.raises(Refusal, match=r"series=1\.2\.3 .*it holds .*\[unknown_series\]"):
        read_scan(tmp_path, "1.2.3")


@pytest.mark.parametrize(
    ("kernel", "maker", "sharp"),
    [
        ("LUNG", "GE MEDICAL SYSTEMS", True),
        ("BONEPLUS", "GE MEDICAL SYSTEMS", True),
        ("STANDARD", "GE MEDICAL SYSTEMS", False),
        ("B70f", "SIEMENS", True),
        ("Bl57d\\3", "SIEMENS", True),
        ("B31f", "SIEMENS", False),
        ("YA", "Philips", True),
        ("B", "Philips", False),
        ("FC51", "TOSHIBA", True),
        ("FC08", "TOSHIBA", False),
        ("B_SHARP_C", "UIH", True),
        ("", "", False),
    ],
)
def test_kernels_are_known_by_their_makers_names(kernel, maker, sharp):
    assert is_sharp(kernel, maker) is sharp


def test_a_folder_without_a_scan_says_so(tmp_path):
    (tmp_path / "note.txt").write_text("nothing here")
    with pytest.raises(Refusal, match=r"1 files, none is a DICOM image; .*\[no_dicom\]"):
        read_scan(tmp_path)
    with pytest.raises(Refusal, match=r"not a folder; .*\[no_folder\]"):
        read_scan(tmp_path / "note.txt")


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    write(tmp_path / "real")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "scan").symlink_to(tmp_path / "real")
    with pytest.raises(Refusal, match=r"1 links, which are not followed"):
        read_scan(tmp_path / "given")


def test_pipes_are_not_waited_for(tmp_path):
    import os

    folder = write(tmp_path)
    os.mkfifo(folder / "pipe")
    assert read_scan(folder).notes[0] == "1 files that are not DICOM, or links, were left out"


def test_a_deflated_file_is_not_inflated(tmp_path):
    series = make_series(Form())
    series.slices[0][1].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    with pytest.raises(Refusal, match=r"deflated .*\[transfer_syntax\]"):
        read_scan(series.write(tmp_path))


def scans(tmp_path, prior=None, later=None):
    older, newer = {"AcquisitionDate": "20250301"}, {"AcquisitionDate": "20260301"}
    one = read_scan(write(tmp_path / "prior", change=setting(**older | (prior or {}))))
    two = read_scan(write(tmp_path / "later", change=setting(**newer | (later or {}))))
    return one, two


def test_days_between_scans(tmp_path):
    one, two = scans(tmp_path)
    assert interval_days(one, two) == 365
    with pytest.raises(Refusal, match=r"exchange them \[prior_not_earlier\]"):
        interval_days(two, one)


@pytest.mark.parametrize(
    ("prior", "later", "code"),
    [
        ({"PatientID": "X"}, {}, "different_patients"),
        ({"PatientBirthDate": "19700101"}, {}, "different_patients"),
        ({"LongitudinalTemporalInformationModified": "MODIFIED"}, {}, "shifted_dates"),
        ({}, {"LongitudinalTemporalInformationModified": "REMOVED"}, "shifted_dates"),
        ({"AcquisitionDate": "", "SeriesDate": ""}, {"StudyDate": ""}, "missing_date"),
        ({"AcquisitionDate": "yesterda"}, {}, "missing_date"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_days_that_are_not_known_are_refused(tmp_path, prior, later, code):
    one, two = scans(tmp_path, prior, later)
    with pytest.raises(Refusal) as refusal:
        interval_days(one, two)
    assert refusal.value.code == code


def test_dates_shifted_alike_give_days(tmp_path):
    shifted = {"LongitudinalTemporalInformationModified": "MODIFIED"}
    one, two = scans(tmp_path, shifted, shifted)
    assert interval_days(one, two) == 365


def test_the_same_date_is_taken_from_both(tmp_path):
    one, two = scans(tmp_path, {"AcquisitionDate": "", "SeriesDate": "20260201"})
    assert interval_days(one, two) == 28
