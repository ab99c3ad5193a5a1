import json
import math

import numpy as np
import pytest

from kits.fraud.evaluate import evaluate_run
from kits.fraud.scores import load_scores

# The first test trains the run that they share.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def run(finished_run):
    return finished_run


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def test_a_run_leaves_what_explains_it(run):
    for name in (
        "config.yaml", "environment.json", "data.json", "scores.npz", "facts.json",
        "metrics.json", "report.html", "model/model.json", "model/trees_0.txt",
        "model/samples.npz",
    ):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert len(json.loads((run / "data.json").read_text())["sha256"]) == 64
    assert json.loads((run / "environment.json").read_text())["packages"]["lightgbm"]


def test_metrics_have_the_documented_flat_keys(metrics):
    keys = ("ap", "auc", "cp_at_100", "recall_at_fpr_0.003", "detectable_recall_at_fpr_0.003",
            "fpr_test", "value_recall_at_fpr_0.003", "ece")  # fmt: skip
    for key in keys:
        assert 0 <= metrics[key] <= 1, key
        assert metrics[f"{key}.low"] <= metrics[key] <= metrics[f"{key}.high"], key
    for name in ("lightgbm", "logistic", "random_forest", "xgboost", "lstm", "lstm_gat", "brief"):
        for key in ("ap", "auc", "cp_at_100", "fpr_test"):
            assert math.isfinite(metrics[f"baseline.{name}.{key}"]), (name, key)
    assert metrics["smoke"] is True
    assert metrics["window.lightgbm_short.ap"] > 0
    assert "control.lstm_gat_shuffled.worth.ap" in metrics
    assert any(key.startswith("week.2018-07-") and key.endswith(".ap") for key in metrics)


def test_scoring_beats_chance_by_far(metrics):
    assert metrics["baseline.lightgbm.auc"] > 0.7
    assert metrics["auc"] > 0.7


def test_evaluating_again_gives_the_same_numbers(run, metrics):
    assert evaluate_run(run) == metrics


def test_all_models_scored_the_same_rows(run):
    scores = load_scores(run / "scores.npz")
    (period,) = scores.periods
    rows = {len(scored.label) for scored in period.test.values()}
    assert len(rows) == 1


def test_the_leak_checks_of_the_run_passed(run):
    checks = json.loads((run / "facts.json").read_text())["leak_checks"]
    assert checks
    assert all(check["passed"] for check in checks)


@pytest.mark.slow
def test_the_same_command_gives_the_same_scores(run, run_again):
    again = run_again()
    one, two = (load_scores(path / "scores.npz").periods[0].test for path in (run, again))
    for name in one:
        assert np.array_equal(one[name].score, two[name].score), name
