from datetime import timedelta

import pytest

from kits.medical.results.pseudonyms import Pseudonyms, make_key, read_key

KEY = b"k" * 64


def test_a_patient_keeps_one_name_and_one_shift_in_all_studies():
    first, second = (Pseudonyms.of(KEY, "P-17", "", study) for study in ("1.2.3", "1.2.4"))
    assert (first.id, first.name, first.shift) == (second.id, second.name, second.shift)
    assert first.uid("1.2.3") == second.uid("1.2.3") != first.uid("1.2.4")


def test_patients_without_an_id_are_apart_by_study():
    assert Pseudonyms.of(KEY, "", "", "1.2.3").id != Pseudonyms.of(KEY, "", "", "1.2.4").id


def test_the_same_id_of_two_hospitals_is_two_patients():
    assert Pseudonyms.of(KEY, "P", "A", "1.2").id != Pseudonyms.of(KEY, "P", "B", "1.2").id


def test_uids_of_the_standard_stay():
    names = Pseudonyms.of(KEY, "P-17", "", "1.2.3")
    assert names.uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize("patient", ["A", "B", "C"])
def test_dates_are_moved_back_by_a_month_at_least_and_ten_years_at_most(patient):
    shift = Pseudonyms.of(KEY, patient, "", "1.2.3").shift
    assert timedelta(days=30) <= -shift <= timedelta(days=3650)


def test_a_key_is_for_its_owners_eyes(tmp_path):
    path = tmp_path / "key"
    make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_key(path)) == 64
    with pytest.raises(FileExistsError):
        make_key(path)
    path.chmod(0o640)
    with pytest.raises(ValueError, match="mode 640, others may read it"):
        read_key(path)


def test_a_short_key_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(0o600)
    with pytest.raises(ValueError, match="holds 6 bytes"):
        read_key(path)
    with pytest.raises(ValueError, match="the key has 6 bytes"):
        Pseudonyms.of(b"secret", "P-17", "", "1.2.3")
