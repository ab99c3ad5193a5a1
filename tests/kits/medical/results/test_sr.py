"""Reports re-read by others: dcmqi (dcmtk) and highdicom."""

import json
import math
from dataclasses import fields, replace

import highdicom
import pydicom
import pytest
from pydicom.sr.codedict import codes as standard

from kits.medical.results import codes
from kits.medical.results.codes import Code
from kits.medical.results.content import decimal, number
from kits.medical.results.headers import save
from kits.medical.results.seg import segmentation
from kits.medical.results.sr import structured_report
from kits.medical.results.study import SolidCore


def report(study, headers):
    return structured_report(study, headers, segmentation(study, headers))


def below(dataset):
    """All content items of a report."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from below(item)


def items(dataset, name):
    return [
        item
        for item in below(dataset)
        if "ConceptNameCodeSequence" in item
        and item.ConceptNameCodeSequence[0].CodeValue == name.value
    ]


def expected_numbers(nodule):
    """Code value -> number, of everything that is measured on a nodule."""
    sizes, growth = nodule.measures, nodule.growth
    expected = {
        codes.VOLUME: sizes.volume_mm3,
        codes.VOLUME_LOW: sizes.volume_interval_mm3[0],
        codes.VOLUME_HIGH: sizes.volume_interval_mm3[1],
        codes.SEGMENT_VOLUME: sizes.counted_volume_mm3,
        codes.LONG_AXIS: sizes.long_axis_mm,
        codes.SHORT_AXIS: sizes.short_axis_mm,
        codes.DIAMETER: sizes.mean_diameter_mm,
        codes.LARGEST_DIAMETER: sizes.max_diameter_3d_mm,
        codes.ATTENUATION: sizes.mean_hu,
        codes.CERTAINTY: 100 * nodule.finding.score,
    }
    if sizes.core is not None:
        expected |= {
            codes.CORE_VOLUME: sizes.core.volume_mm3,
            codes.CORE_LONG: sizes.core.long_axis_mm,
            codes.CORE_SHORT: sizes.core.short_axis_mm,
            codes.CORE_DIAMETER: sizes.core.mean_diameter_mm,
            codes.CORE_THRESHOLD: sizes.core.threshold_hu,
        }
    if growth is not None:
        expected |= {
            codes.INTERVAL: growth.interval_days,
            codes.PRIOR_VOLUME: growth.prior_volume_mm3,
            codes.PRIOR_DIAMETER: growth.prior_mean_diameter_mm,
            codes.PRIOR_CORE: growth.prior_core_diameter_mm,
            codes.DOUBLINGS: growth.doublings_per_year,
            codes.DOUBLINGS_LOW: growth.doublings_interval[0],
            codes.DOUBLINGS_HIGH: growth.doublings_interval[1],
            codes.DOUBLING_TIME: growth.vdt_days,
            codes.DOUBLING_TIME_LOW: growth.vdt_interval_days[0],
            codes.DOUBLING_TIME_HIGH: growth.vdt_interval_days[1],
        }
    return {
        code.value: value
        for code, value in expected.items()
        if value is not None and math.isfinite(value)
    }


def test_dcmqi_reads_the_same_numbers(grid, make_study, make_headers, dcmqi, tmp_path):
    study = make_study(grid)
    path = save(report(study, make_headers(grid)), tmp_path / "sr.dcm")
    dcmqi("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    read = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    assert len(read) == len(study.nodules)
    for group, nodule in zip(read, study.nodules, strict=True):
        numbers = {
            item["quantity"]["CodeValue"]: float(item["value"])
            for item in group["measurementItems"]
        }
        assert numbers == pytest.approx(expected_numbers(nodule), rel=1e-13)
        assert group["ReferencedSegment"] == nodule.number
        assert group["TrackingUniqueIdentifier"] == nodule.tracking_uid
        assert group["TrackingIdentifier"] == nodule.tracking_id
        assert group["measurementAlgorithmIdentification"]["AlgorithmVersion"] == "2026.1"
        assert group["Finding"]["CodeMeaning"] == "Nodule of lung"
        answers = {
            item["conceptCode"]["CodeValue"]: item["conceptValue"]["CodeValue"]
            for item in group["qualitativeEvaluations"]
            if "conceptValue" in item and "CodeValue" in item["conceptValue"]
        }
        assert answers[codes.TEXTURE.value] == codes.TEXTURES[nodule.texture].value
        assert answers["Lung-RADSv2022"] == "Lung-RADS:4A"
        if nodule.growth is not None:
            assert answers[codes.GROWTH.value] == codes.GROWTHS[nodule.growth.state].value


def test_highdicom_reads_the_same_groups(study, headers, tmp_path):
    made = report(study, headers)
    read = highdicom.sr.srread(save(made, tmp_path / "sr.dcm"))
    groups = read.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(study.nodules)
    for group, nodule in zip(groups, study.nodules, strict=True):
        assert group.tracking_uid == nodule.tracking_uid
        assert group.referenced_segment[0].referenced_segment_numbers == [nodule.number]
        numbers = {measured.name.value: measured.value for measured in group.get_measurements()}
        # highdicom prefers the binary value: equal to the last bit.
        assert numbers == expected_numbers(nodule)


def test_the_validator_finds_no_error(grid, make_study, make_headers, validate):
    assert validate(report(make_study(grid, is_phantom=True), make_headers(grid))) == []


@pytest.mark.parametrize("num_nodules", [0, 1])
def test_few_nodules_are_no_error(
    plain_grid, make_study, headers, validate, dcmqi, tmp_path, num_nodules
):
    made = report(make_study(plain_grid, num_nodules, with_prior=False), headers)
    assert validate(made) == []
    path = save(made, tmp_path / "sr.dcm")
    dcmqi("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    highdicom.sr.srread(path)
    answer = items(made, codes.RESULT)[0].ConceptCodeSequence[0]
    assert answer.CodeValue == (codes.NODULES if num_nodules else codes.NO_NODULE).value


def test_every_reference_resolves(study, headers):
    segments = segmentation(study, headers)
    made = structured_report(study, headers, segments)
    known = {header.SOPInstanceUID for header in headers} | {segments.SOPInstanceUID}
    listed = {
        instance.ReferencedSOPInstanceUID
        for series in made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    pointed = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in below(made)
        if item.ValueType == "IMAGE"
    }
    assert pointed == listed == known


def test_it_says_of_itself_that_nobody_verified_it(plain_grid, make_study, headers):
    made = report(make_study(plain_grid, is_phantom=True), headers)
    assert made.VerificationFlag == "UNVERIFIED"
    assert made.CompletionFlag == "PARTIAL"
    assert made.PreliminaryFlag == "PRELIMINARY"
    statuses = [item.ConceptCodeSequence[0].CodeValue for item in items(made, codes.STATUS)]
    assert statuses == ["unverified", "phantom"]
    assert "UNVERIFIED" in made.CompletionFlagDescription


def test_the_observer_is_a_device_and_no_person(study, headers):
    made = report(study, headers)
    observers = items(made, codes.OBSERVER_TYPE)
    assert [item.ConceptCodeSequence[0].CodeMeaning for item in observers] == ["Device"]
    assert items(made, codes.DEVICE_SERIAL)[0].TextValue == study.model.sha256
    assert not [item for item in below(made) if item.ValueType == "PNAME"]


def test_what_cannot_be_seen_is_said(study, headers):
    limits = [item.TextValue for item in items(report(study, headers), codes.LIMITS)]
    assert limits == list(study.not_detectable.lines["en"])


def test_a_category_gives_its_reasons(study, headers):
    reasons = items(report(study, headers), codes.RATIONALE)[0].TextValue
    assert reasons == "solid, 8.3 mm >= 8 mm; baseline; CT in 3 months; Source: ACR 2022"


@pytest.mark.parametrize(
    ("method", "expected"),
    [("edge-weighted", codes.PARTIAL_VOLUME), ("counted", codes.SEGMENTED_VOXELS)],
)
def test_the_volume_says_how_it_was_measured(study, headers, method, expected):
    nodules = [
        replace(nodule, measures=replace(nodule.measures, volume_method=method))
        for nodule in study.nodules
    ]
    made = report(replace(study, nodules=tuple(nodules)), headers)
    said = items(made, codes.VOLUME)[0].ContentSequence[0].ConceptCodeSequence[0]
    assert said.CodeValue == expected.value


def test_codes_of_rule_sets_do_not_collide(study, headers):
    meanings = {}
    for item in below(report(study, headers)):
        for coded in (
            *item.get("ConceptNameCodeSequence", ()),
            *item.get("ConceptCodeSequence", ()),
        ):
            key = (coded.CodeValue, coded.CodingSchemeDesignator)
            assert meanings.setdefault(key, coded.CodeMeaning) == coded.CodeMeaning


def test_an_infinite_doubling_time_has_no_upper_limit(study, headers):
    open_ended = [n for n in study.nodules if n.growth and n.growth.state == "undecided"]
    made = report(study, headers)
    assert len(items(made, codes.DOUBLING_TIME)) == 2
    assert len(items(made, codes.DOUBLING_TIME_HIGH)) == 2 - len(open_ended) == 1


def test_the_same_input_gives_the_same_file(study, headers, make_headers, plain_grid, tmp_path):
    first = save(report(study, headers), tmp_path / "1.dcm")
    second = save(report(study, make_headers(plain_grid)), tmp_path / "2.dcm")
    assert first.read_bytes() == second.read_bytes()


def test_a_segmentation_of_something_else_is_refused(study, headers, make_study, plain_grid):
    fewer = segmentation(make_study(plain_grid, 2), headers)
    with pytest.raises(ValueError, match=r"nodules=\[3\] have no segment"):
        structured_report(study, headers, fewer)


def test_texts_keep_to_the_scans_character_set(study, make_headers, plain_grid, tmp_path):
    study = replace(study, notes={"en": ("café ≥ 1",)})
    for character_set, expected in ((None, "caf? >= 1"), ("ISO_IR 192", "café ≥ 1")):
        changes = {} if character_set is None else {"SpecificCharacterSet": character_set}
        path = save(report(study, make_headers(plain_grid, **changes)), tmp_path / "sr.dcm")
        assert items(pydicom.dcmread(path), codes.NOTE)[0].TextValue == expected


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-7, 123456789.123456789, -2.5e-12, 7.0])
def test_a_number_survives_to_the_last_bit(value):
    measured = number(codes.VOLUME, value, codes.CUBIC_MILLIMETRE).MeasuredValueSequence[0]
    assert len(decimal(value)) <= 16
    assert measured.get("FloatingPointValue", float(measured.NumericValue)) == value


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        number(codes.VOLUME, math.nan, codes.CUBIC_MILLIMETRE)


def test_codes_fit_their_elements():
    for code in (value for value in vars(codes).values() if isinstance(value, Code)):
        assert len(code.value) <= 16, code
        assert len(code.meaning) <= 64, code
    long = codes.own("A rule set with a long name v2022", "x" * 80)
    assert len(long.value) <= 16
    assert long.value != codes.own("A rule set with a long name v2023", "").value


def test_codes_of_the_standard_are_the_standards():
    for ours, theirs in (
        (codes.NODULE, standard.SCT.Nodule),
        (codes.LUNG, standard.SCT.Lung),
        (codes.LONG_AXIS, standard.SCT.LongAxis),
        (codes.SHORT_AXIS, standard.SCT.ShortAxis),
        (codes.VOLUME, standard.SCT.Volume),
        (codes.CERTAINTY, standard.DCM.CertaintyOfFinding),
        (codes.ATTENUATION, standard.DCM.AttenuationCoefficient),
        (codes.REFERENCED_SEGMENT, standard.DCM.ReferencedSegment),
        (codes.SOURCE_SERIES, standard.DCM.SourceSeriesForSegmentation),
        (codes.ALGORITHM_NAME, standard.DCM.AlgorithmName),
        (codes.ALGORITHM_VERSION, standard.DCM.AlgorithmVersion),
        (codes.ALGORITHM_PARAMETERS, standard.DCM.AlgorithmParameters),
        (codes.PROCEDURE, standard.DCM.ProcedureReported),
        (codes.SEGMENTED_VOXELS, standard.DCM.SumOfSegmentedVoxelMethodForVolume),
    ):
        assert (ours.value, ours.scheme) == (theirs.value, theirs.scheme_designator)


def test_a_core_reports_all_of_its_fields():
    assert {field.name for field in fields(SolidCore)} == {
        "threshold_hu", "volume_mm3", "long_axis_mm", "short_axis_mm", "mean_diameter_mm",
        "slice_index",
    }  # fmt: skip
