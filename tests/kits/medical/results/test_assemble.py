"""From findings to a study, with and without an earlier scan."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kits.medical.findings import Finding
from kits.medical.refusals import Refusal
from kits.medical.results.assemble import build_study, location
from kits.medical.results.matching import Box, lung_box
from kits.medical.results.priors import from_report, from_study
from kits.medical.results.summary import FORMAT, SUMMARY_FILE, summary, write_summary


@pytest.fixture
def built(chest, context):
    return build_study(*chest, context)


@pytest.fixture
def box(chest):
    findings = chest[1]
    return lung_box(findings.grid, findings.lung_window)


def later(context, days="20210310"):
    """The same patient a year later."""
    source = replace(context.source, study_date=days, study_uid="2.25.9", series_uid="2.25.10")
    return replace(context, source=source)


def test_nodules_are_numbered_by_size_and_measured(built):
    assert [nodule.number for nodule in built.nodules] == [1, 2, 3]
    assert [nodule.texture for nodule in built.nodules] == ["part_solid", "non_solid", "solid"]
    diameters = [nodule.measures.mean_diameter_mm for nodule in built.nodules]
    assert diameters == pytest.approx([20.0, 16.0, 12.0], abs=1.0)
    assert built.nodules[0].measures.core.mean_diameter_mm == pytest.approx(10.0, abs=1.5)
    assert built.nodules[2].measures.volume_mm3 == pytest.approx(905, rel=0.05)


def test_places_are_the_patients_sides(built):
    assert [nodule.location["en"] for nodule in built.nodules] == [
        "left lung, middle third", "right lung, lower third", "right lung, upper third",
    ]  # fmt: skip
    assert location((0.1, 0.0, 0.0), Box((-1, -1, -1), (1, 1, 1)))["zh"] == "左肺中三分之一"


def test_every_rule_set_says_something_of_every_nodule_and_of_the_scan(built):
    assert built.rule_sets == ("Lung-RADS", "C-Lung-RADS", "Fleischner")
    codes = [[category.code for category in nodule.categories] for nodule in built.nodules]
    assert codes == [
        ["4B", "4", "3-6-suspicious"], ["2", "2", "3-6-subsolid"], ["4A", "3", "3-or-tissue"],
    ]  # fmt: skip
    assert [category.code for category in built.categories] == ["4B", "4", "3-or-tissue"]


def test_what_concerns_the_whole_scan_is_noted(built):
    assert built.notes["en"] == (
        "The network was trained on phantoms alone: it has never seen a patient.",
        "a note of the reader",
    )
    assert built.not_detectable.noise_hu == pytest.approx(20, abs=3)
    assert built.not_detectable.thickness_mm == 2.5


def test_tracking_uids_are_the_same_each_time_and_of_each_nodule(chest, context, built):
    again = build_study(*chest, context)
    uids = [nodule.tracking_uid for nodule in built.nodules]
    assert uids == [nodule.tracking_uid for nodule in again.nodules]
    assert len(set(uids)) == 3
    assert all(uid.startswith("2.25.") for uid in uids)


def test_an_outline_that_ran_over_is_told_and_not_reported(chest, context):
    volume, findings = chest
    whole = tuple(slice(0, size) for size in volume.grid.shape)
    mask = volume.voxels < -700
    spilt = Finding(
        0.9, (0.0, 0.0, 0.0), whole, mask, mask.astype(np.uint8) * np.uint8(255), (1, 0, 0)
    )
    more = replace(findings, findings=(spilt, *findings.findings))
    study = build_study(volume, more, context)
    assert len(study.nodules) == 3
    assert any("its outline ran over" in line for line in study.notes["en"])


def test_a_scan_without_nodules_is_a_study(chest, context):
    volume, findings = chest
    study = build_study(volume, replace(findings, findings=()), context)
    assert study.nodules == ()
    assert [category.code for category in study.categories] == ["1", "0", "none"]


def test_a_nodule_keeps_its_name_and_is_compared(chest, make_chest, context, built, box):
    volume, findings = make_chest(scale=1.5)
    prior = from_study(built, box, 365.0)
    study = build_study(volume, findings, later(context), prior)
    assert [nodule.growth.state for nodule in study.nodules] == ["growing"] * 3
    assert study.prior_date == "20200310"
    for now, before in zip(study.nodules, built.nodules, strict=True):
        assert now.tracking_uid == before.tracking_uid
        assert now.growth.prior_volume_mm3 == before.measures.volume_mm3
        # 1.5 in diameter is 3.4 in volume, 1.75 doublings in a year
        assert now.growth.vdt_days == pytest.approx(365 / 1.75, rel=0.1)
    lines = study.nodules[2].categories[0].rationale["en"]
    assert "mm within 12 months (after 365 days); volume growing; category before 4A" in lines[0]


def test_new_and_lost_nodules_are_told(chest, context, built, box):
    volume, findings = chest
    prior = from_study(replace(built, nodules=built.nodules[:2]), box, 365.0)
    fewer = replace(findings, findings=(findings.findings[0], findings.findings[1]))
    study = build_study(volume, fewer, later(context), prior)
    assert [nodule.growth.state for nodule in study.nodules] == ["undecided", "new"]
    assert study.nodules[1].categories[0].rationale["en"][0].startswith("new")
    assert any("Nodule 2 of the earlier scan" in line for line in study.notes["en"])
    assert any("前次检查的结节 2" in line for line in study.notes["zh"])


def test_a_report_is_as_good_a_prior_as_its_scan(chest, context, built, box, tmp_path):
    write_summary(built, box, tmp_path / SUMMARY_FILE)
    read = from_report(tmp_path, later(context).source)
    assert read == from_study(built, box, 365.0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"patient_id": "P-18"}, "different_patients"),
        ({"patient_id": ""}, "different_patients"),
        ({"study_date": "20200310"}, "prior_not_earlier"),
        ({"study_date": ""}, "missing_date"),
    ],
)
def test_a_report_that_cannot_be_compared_is_refused(context, built, box, tmp_path, change, code):
    write_summary(built, box, tmp_path / SUMMARY_FILE)
    with pytest.raises(Refusal) as refused:
        from_report(tmp_path, replace(later(context).source, **change))
    assert refused.value.code == code


def test_a_file_of_another_kind_is_no_prior(context, tmp_path):
    (tmp_path / SUMMARY_FILE).write_text("{}")
    with pytest.raises(ValueError, match="is not of the format"):
        from_report(tmp_path, context.source)


def test_the_summary_holds_every_number_and_says_that_it_is_unverified(built, box, tmp_path):
    path = write_summary(built, box, tmp_path / SUMMARY_FILE)
    content = json.loads(path.read_text())
    assert content == json.loads(json.dumps(summary(built, box)))
    assert (content["format"], content["status"][:10]) == (FORMAT, "unverified")
    nodule = content["nodules"][0]
    assert nodule["measures"]["mean_diameter_mm"] == built.nodules[0].measures.mean_diameter_mm
    assert nodule["measures"]["volume_interval_mm3"][0] < nodule["measures"]["volume_mm3"]
    assert nodule["categories"][0]["rationale"]["zh"]
    assert nodule["finding"]["num_voxels"] == int(built.nodules[0].finding.mask.sum())
    first = path.read_bytes()
    assert write_summary(built, box, path).read_bytes() == first


def test_bounds_that_are_infinite_are_null(chest, context, built, box):
    study = build_study(*chest, later(context), from_study(built, box, 365.0))
    growth = summary(study, box)["nodules"][0]["growth"]
    assert growth["vdt_interval_days"][1] is None
