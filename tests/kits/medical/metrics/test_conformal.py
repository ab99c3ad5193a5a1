import numpy as np
import pytest

from kits.medical.metrics.conformal import (
    PatientScores,
    by_patient,
    choose_threshold,
    conformal_metrics,
    fp_per_scan,
)
from kits.medical.metrics.froc import ScanResult, Target


def patient(name, hits, wrong=(), num_scans=1):
    return PatientScores(name, num_scans, np.array(hits, float), np.array(wrong, float))


def simulated(generator, num):
    """Patients with 1 to 4 nodules whose scores share a patient's effect, and false positives."""
    result = []
    for index in range(num):
        level = generator.normal(2, 1)
        hits = level + generator.normal(0, 1, generator.integers(1, 5))
        result.append(patient(f"p{index}", hits, generator.normal(0, 1, generator.poisson(3))))
    return result


def test_the_threshold_is_the_highest_that_keeps_the_bound():
    # 39 patients with one nodule each: (misses + 1) / 40 <= 0.05 allows one miss.
    patients = [patient(str(score), [score]) for score in range(39)]
    assert choose_threshold(patients, 0.05) == 1
    assert choose_threshold(patients, 0.075) == 2


def test_a_missed_nodule_weighs_as_its_share_of_the_patient():
    patients = [patient(str(index), [10, 10]) for index in range(38)]
    patients.append(patient("half", [0, 10]))
    assert choose_threshold(patients, 0.05) == 10
    # (0.5 + 1) / 40 is just above this one.
    assert choose_threshold(patients, 0.0374) == 0


def test_too_few_patients_have_no_guarantee():
    patients = [patient(str(index), [1]) for index in range(18)]
    assert choose_threshold(patients, 0.05) is None
    assert choose_threshold([*patients, patient("one more", [1])], 0.05) == 1
    assert choose_threshold([patient("healthy", [])], 0.05) is None


def test_nodules_that_are_never_found_leave_no_threshold():
    patients = [patient(str(index), [1]) for index in range(30)]
    patients += [patient(f"missed {index}", [-np.inf]) for index in range(5)]
    assert choose_threshold(patients, 0.05) is None
    assert choose_threshold(patients, 0.2) == 1


@pytest.mark.parametrize("alpha", [0, 1, -0.1])
def test_alpha_is_a_share(alpha):
    with pytest.raises(ValueError, match="is not between 0 and 1"):
        choose_threshold([patient("a", [1])], alpha)


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_miss_rate_is_held_over_200_fresh_calibrations(alpha):
    generator = np.random.default_rng(1)
    misses = []
    for _ in range(200):
        threshold = choose_threshold(simulated(generator, 60), alpha)
        misses.append(np.mean([p.loss(threshold) for p in simulated(generator, 60)]))
    # Two binomial standard errors of 200 x 60 patients.
    assert np.mean(misses) <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / (200 * 60))
    # And it is no empty promise: at most what 1 / (n + 1) costs is given away, and that again.
    assert np.mean(misses) >= alpha - 2 / 61 - 2 * np.sqrt(alpha * (1 - alpha) / (200 * 60))


def test_200_resampled_splits_hold_it_too_and_say_what_it_costs():
    patients = simulated(np.random.default_rng(5), 120)
    found = conformal_metrics(patients, 0.05)
    name = "conformal_5_percent"
    assert found[f"{name}.splits_with_threshold"] == 1
    assert found[f"{name}.miss_rate"] <= 0.05 + found[f"{name}.tolerance"]
    assert 0 < found[f"{name}.fp_per_scan"] < 3
    assert found == conformal_metrics(patients, 0.05)


def test_without_a_threshold_only_that_is_said():
    found = conformal_metrics([patient("a", [1.0]), patient("b", [])], 0.05)
    assert found == {
        "conformal_5_percent.num_patients": 1,
        "conformal_5_percent.splits_with_threshold": 0,
    }


def test_a_patient_is_all_of_their_scans():
    def scan(name, x):
        targets = (
            Target("n", (0.0, 0.0, 0.0), diameter_mm=6, is_included=True),
            Target("few", (50.0, 0.0, 0.0), diameter_mm=6, is_included=False),
        )
        centres = np.array([[x, 0.0, 0.0], [50.0, 0, 0], [99.0, 0, 0]])
        return ScanResult(name, "p", targets, centres, np.array([0.9, 0.8, 0.7]))

    (gathered,) = by_patient([scan("first", 0.0), scan("second", 20.0)])
    assert gathered.num_scans == 2
    assert gathered.hits.tolist() == [0.9, -np.inf]
    assert gathered.false_positives.tolist() == [0.7, 0.9, 0.7]
    assert gathered.loss(0.5) == 0.5
    assert fp_per_scan([gathered], 0.8) == 0.5
