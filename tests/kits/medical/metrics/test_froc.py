import numpy as np
import pytest

from kits.medical.metrics.froc import (
    ScanResult,
    Target,
    cpm,
    froc,
    froc_metrics,
    match,
    sensitivity_at,
    threshold_at,
)


def scan(name, findings, targets=(), patient=None):
    """Findings are (x, score), targets (x, diameter_mm, is_included); all on one line."""
    return ScanResult(
        name,
        patient or name,
        tuple(
            Target(f"{name}_{index}", (x, 0.0, 0.0), diameter_mm, is_included)
            for index, (x, diameter_mm, is_included) in enumerate(targets)
        ),
        np.array([(x, 0.0, 0.0) for x, _ in findings]).reshape(-1, 3),
        np.array([score for _, score in findings], float),
    )


def test_a_hit_is_closer_than_the_radius_and_the_radius_itself_is_outside():
    found = match(scan("a", [(2.99, 0.9), (13.0, 0.8)], [(0, 6, True), (10, 6, True)]))
    assert dict(found.best) == {"a_0": 0}
    assert found.false_positives.tolist() == [1]


def test_of_several_findings_on_one_nodule_the_highest_counts_and_none_is_false():
    found = match(scan("a", [(0, 0.2), (1, 0.7), (2, 0.5)], [(0, 6, True)]))
    assert dict(found.best) == {"a_0": 1}
    assert not len(found.false_positives)


def test_a_finding_on_an_excluded_nodule_is_neither_hit_nor_false():
    found = match(scan("a", [(0, 0.9), (50, 0.8)], [(0, 6, False)]))
    assert not found.best
    assert found.false_positives.tolist() == [1]


def test_scans_without_nodules_count_in_the_rate():
    scans = [scan("a", [(0, 0.9), (99, 0.5)], [(0, 6, True)]), scan("b", []), scan("c", [(0, 0.7)])]
    curve = froc(scans)
    np.testing.assert_allclose(curve.thresholds, [0.9, 0.7, 0.5])
    np.testing.assert_allclose(curve.fp_per_scan, [0, 1 / 3, 2 / 3])
    np.testing.assert_allclose(curve.sensitivity, [1, 1, 1])
    assert (curve.num_scans, curve.num_targets) == (3, 1)


def test_sensitivity_at_a_rate_is_that_of_a_threshold_one_can_set():
    scans = [
        scan("a", [(0, 0.9), (99, 0.8), (20, 0.3)], [(0, 6, True), (20, 6, True), (60, 6, True)])
    ]
    curve = froc(scans)
    assert sensitivity_at(curve, 0.5) == pytest.approx(1 / 3)
    assert sensitivity_at(curve, 1) == pytest.approx(2 / 3)
    assert threshold_at(curve, 0.5) == 0.9
    assert threshold_at(curve, 1) == 0.3
    assert cpm(curve) == pytest.approx((3 * (1 / 3) + 4 * (2 / 3)) / 7)


def test_equal_scores_fall_together():
    curve = froc([scan("a", [(0, 0.5), (99, 0.5)], [(0, 6, True)])])
    assert curve.thresholds.tolist() == [0.5]
    assert curve.fp_per_scan.tolist() == [1]
    assert sensitivity_at(curve, 0.5) == 0


def test_no_finding_at_all_is_no_sensitivity():
    found = froc_metrics([scan("a", [], [(0, 6, True)]), scan("b", [])], replicates=20)
    assert found["cpm"] == found["cpm.high"] == 0
    assert found["num_scans"] == 2
    assert "threshold_at_1_fp" not in found


def test_without_an_included_nodule_there_is_no_curve():
    with pytest.raises(ValueError, match="no scan holds an included nodule"):
        froc([scan("a", [(0, 1)], [(0, 6, False)])])


def test_intervals_hold_the_number_and_come_out_the_same_again():
    generator = np.random.default_rng(0)
    scans = []
    for index in range(30):
        targets = [(0, 6, True), (30, 8, True)]
        findings = [(99 + i, score) for i, score in enumerate(generator.random(2))]
        findings += [
            (x, generator.random() + 0.3) for x, _, _ in targets if generator.random() < 0.9
        ]
        scans.append(scan(f"s{index}", findings, targets, patient=f"p{index // 2}"))
    found = froc_metrics(scans, replicates=200)
    assert found == froc_metrics(scans, replicates=200)
    for key in ("cpm", "sensitivity_at_1_8th_fp", "sensitivity_at_1_fp"):
        assert 0 < found[f"{key}.low"] <= found[key] <= found[f"{key}.high"] <= 1
    assert found["sensitivity_at_8_fp"] >= found["sensitivity_at_half_fp"]
