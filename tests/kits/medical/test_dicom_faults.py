"""Every injected fault is read exactly or refused with its reason: nothing is silently wrong."""

import numpy as np
import pytest

from benchmarks.medical.healthy import Form, forms
from benchmarks.medical.injection import FAULTS, inject
from kits.medical.dicom import Refusal, read_scan
from kits.medical.refusals import CODES

READ = [name for name, fault in FAULTS.items() if fault.must == "read"]
REFUSED = [name for name, fault in FAULTS.items() if fault.must != "read"]
# Two different forms: unsigned 12 bits explicit; signed or 16 bits, implicit, from feet to head.
FORMS = [Form(), forms(6)[3]]


def assert_equal(scan, truth):
    grid = scan.volume.grid
    assert grid.shape == truth.hu.shape
    np.testing.assert_allclose(grid.spacing_mm, truth.spacing_mm, rtol=2e-3)
    ends = np.array([(0, 0, 0), np.subtract(grid.shape, 1)])
    np.testing.assert_allclose(grid.to_patient(ends), truth.to_patient(ends), atol=0.03)
    np.testing.assert_array_equal(scan.volume.voxels, truth.hu)
    assert scan.volume.voxels.dtype == np.int16
    assert [str(one.SeriesInstanceUID) for one in scan.datasets] == [scan.source.series_uid] * len(
        truth.hu
    )


def test_there_are_enough_faults():
    assert len(REFUSED) >= 40
    assert len(READ) >= 20


@pytest.mark.parametrize("form", FORMS, ids=["first", "second"])
@pytest.mark.parametrize("name", READ)
def test_known_scans_are_read_exactly(tmp_path, name, form):
    series = inject(name, form)
    assert_equal(read_scan(series.write(tmp_path)), series.truth)


@pytest.mark.parametrize("form", FORMS, ids=["first", "second"])
@pytest.mark.parametrize("name", REFUSED)
def test_unknown_scans_are_refused_with_their_reason(tmp_path, name, form):
    folder = inject(name, form).write(tmp_path)
    with pytest.raises(Refusal) as refusal:
        read_scan(folder)
    assert refusal.value.code in FAULTS[name].codes
    assert set(FAULTS[name].codes) <= set(CODES)
    # What was seen, the rule; what to do.
    assert ";" in str(refusal.value)


@pytest.mark.parametrize("kept", [*range(0, 1700, 100), 128, 132, 133, 2000, 4000])
def test_a_slice_that_ends_anywhere_is_never_lost(tmp_path, kept):
    series = inject("healthy", FORMS[0])
    folder = series.write(tmp_path)
    last = folder / series.slices[-1][0]
    last.write_bytes(last.read_bytes()[:kept])
    with pytest.raises(Refusal):
        read_scan(folder)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_random_bytes_in_a_header_never_change_the_volume(tmp_path, seed):
    series = inject("healthy", FORMS[0])
    folder = series.write(tmp_path)
    rng = np.random.default_rng((13, seed))
    file = folder / series.slices[5][0]
    content = bytearray(file.read_bytes())
    for place in rng.integers(128, len(content) - len(series.slices[5][1].PixelData), 3):
        content[place] = rng.integers(256)
    file.write_bytes(content)
    try:
        scan = read_scan(folder)
    except Refusal:
        return
    assert_equal_but_uids(scan, series.truth)


def assert_equal_but_uids(scan, truth):
    np.testing.assert_allclose(scan.volume.grid.spacing_mm, truth.spacing_mm, rtol=0.01)
    np.testing.assert_allclose(scan.volume.grid.origin_mm, truth.origin_mm, atol=0.1)
    assert scan.volume.grid.shape == truth.hu.shape
    wrong = np.abs(scan.volume.voxels.astype(int) - truth.hu)
    assert wrong.max() <= 20  # one slice's intercept in its last digits is all that can hide
