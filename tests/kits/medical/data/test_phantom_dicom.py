import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest
import SimpleITK

from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import make_phantom
from kits.medical.data.phantom_dicom import main, parse, write_series


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(PhantomData(pixel_mm=4.0, slice_mm=6.0, shape=(20, 72, 96)), "test", 0)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicom") / "series"
    write_series(phantom, folder)
    return folder


def test_simpleitk_reads_the_same_hounsfield_units_and_geometry(phantom, folder):
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    image = reader.Execute()
    volume = phantom.case.volume
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), volume.voxels)
    np.testing.assert_allclose(image.GetSpacing()[::-1], volume.grid.spacing_mm, atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), volume.grid.origin_mm, atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-9)


def test_every_header_says_that_it_is_a_phantom(folder):
    for path in folder.iterdir():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert header.QualityControlSubject == header.QualityControlImage == "YES"
        for name in ("PatientID", "StudyDescription", "SeriesDescription", "ImageComments"):
            assert str(header[name].value).startswith("PHANTOM")
        assert str(header.PatientName).startswith("PHANTOM^")
        assert header.ImageType[-1] == "PHANTOM"


def test_uids_are_below_2_25_and_one_of_each_slice(folder):
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
    uids = {header.SOPInstanceUID for header in headers}
    assert len(uids) == len(headers) == 20
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    assert len({header.SeriesInstanceUID for header in headers}) == 1


def test_the_same_phantom_writes_the_same_bytes(phantom, folder, tmp_path):
    again = write_series(phantom, tmp_path / "again")
    assert all(path.read_bytes() == (folder / path.name).read_bytes() for path in again)


def test_a_folder_with_files_is_refused(phantom, folder):
    with pytest.raises(ValueError, match="is not empty"):
        write_series(phantom, folder)


def test_the_command_writes_a_series_and_tells_its_nodules(tmp_path, monkeypatch, capsys):
    words = ["phantom_dicom", str(tmp_path / "out"), "shape=12,64,80", "slice_mm=4", "pixel_mm=4"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    assert len(list((tmp_path / "out").iterdir())) == 12
    assert "12 slices of PHANTOM-0-test-0000. PHANTOM" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "folder is missing"),
        (["out", "size=3"], "'size=3' is not one of seed"),
        (["out", "seed=x"], "invalid literal"),
    ],
)
def test_a_wrong_command_line_says_what_is_right(words, text):
    with pytest.raises(ValueError, match=text):
        parse(words)


def test_dciodvfy_finds_no_error(folder):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed; make system")
    for path in sorted(folder.iterdir())[:3]:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in done.stdout + done.stderr
