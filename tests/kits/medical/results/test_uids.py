from dataclasses import replace
from datetime import datetime
from uuid import RFC_4122, UUID

import pydicom.config
import pydicom.uid
import pytest
from pydicom.dataset import Dataset

from kits.medical.results.uids import derived_uid, moment, object_uid


def test_a_uid_is_valid_and_follows_from_its_parts():
    uid = derived_uid("a", "b")
    assert pydicom.uid.UID(uid).is_valid
    assert uid == derived_uid("a", "b")
    assert len({uid, derived_uid("ab"), derived_uid("b", "a"), derived_uid("a", "b", "")}) == 4


def test_a_uid_is_that_of_a_uuid():
    uuid = UUID(int=int(derived_uid("a").removeprefix("2.25.")))
    assert (uuid.version, uuid.variant) == (8, RFC_4122)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"sha256": "cd" * 32}},
        {"model": {"thresholds": {"score": 0.36}}},
        {"model": {"runtime": "openvino int8"}},
        {"source": {"series_uid": "1.2.3"}},
        {"prior_study_uid": "1.2.4"},
        {"person": {"risk": "high"}},
        {"categories": ()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_inputs_make_other_objects(study, changes):
    new = {
        name: replace(getattr(study, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    assert object_uid(study, "seg") != object_uid(replace(study, **new), "seg")


def test_what_was_found_does_not_change_the_uid(study):
    assert object_uid(study, "seg") == object_uid(replace(study, nodules=()), "seg")
    assert object_uid(study, "seg") != object_uid(study, "sr")


def test_the_moment_is_the_latest_of_the_slices():
    headers = [Dataset(), Dataset()]
    headers[0].ContentDate, headers[0].ContentTime = "20200310", "101502"
    headers[1].ContentDate, headers[1].ContentTime = "20200310", "101503"
    assert moment(headers) == ("20200310", "101503")


def test_the_moment_falls_back_to_what_there_is():
    header = Dataset()
    header.StudyDate = "20200310"
    assert moment([header]) == ("20200310", "000000")
    assert moment([Dataset()]) == ("19000101", "000000")


def test_dates_of_old_files_are_read_and_wrong_ones_passed_over():
    header = Dataset()
    with pydicom.config.disable_value_validation():
        header.ContentDate, header.ContentTime = "20201399", "101502"
        header.StudyDate, header.StudyTime = "1999.01.31", "12:30:00"
    assert moment([header]) == ("19990131", "123000")


def test_a_clock_wins(headers):
    assert moment(headers, datetime(2026, 1, 2, 3, 4, 5)) == ("20260102", "030405")
