import json
from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score

from kits.fraud.config import FraudTrainConfig
from kits.fraud.exportable import last_period, mix, open_run, read_samples, scorer_inputs
from kits.fraud.exportable import train_config as read_config
from kits.fraud.model import LstmGat
from kits.fraud.model_config import LstmGatConfig
from kits.fraud.neural import arrays_of
from kits.fraud.scorer import Scorer, columns
from kits.fraud.scores import load_scores
from kits.fraud.stack import Stack
from kits.fraud.trees import TreeEnsemble, read_trees

# The first test trains the run that they share.
pytestmark = pytest.mark.timeout(400)

# Sums in float32 here and in float64 there.
TOLERANCE = 1e-5
# Training standardises events once and keeps them in half precision; a bundle gets raw ones.
HALF_PRECISION = 5e-3


@pytest.fixture(scope="module")
def exportable(finished_run):
    return open_run(finished_run)


@pytest.fixture(scope="module")
def period(finished_run):
    cfg = read_config(yaml.safe_load((finished_run / "config.yaml").read_text()))
    return last_period(cfg, 10**9)


def logits(source, task, rows):
    parts = [rows[k : k + 512] for k in range(0, len(rows), 512)]
    return np.concatenate([source.run(scorer_inputs(task, part))["logit"] for part in parts])


def test_the_scorer_gives_the_scores_that_the_run_stored(finished_run, exportable, period):
    task, rows = period
    stored = load_scores(finished_run / "scores.npz").periods[-1].test["deepkits"]
    assert np.array_equal(stored.label, task.arrays.label[rows])
    logit = logits(exportable.source, task, rows)
    assert np.abs(logit - stored.score).max() < HALF_PRECISION
    interpolate, threshold = exportable.post
    probability = np.interp(stored.score, interpolate["x"], interpolate["y"])
    assert np.array_equal(probability, stored.probability)
    metrics = json.loads((finished_run / "metrics.json").read_text())
    (week,) = (name for name in metrics if name.startswith("week.") and name.endswith(".threshold"))
    assert threshold["at"] == metrics[week]


def test_the_scorer_is_network_and_trees_blended(finished_run, exportable, period):
    task, rows = period[0], period[1][:300]
    scorer, inputs = exportable.source.module, scorer_inputs(task, rows)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        network = scorer.network({**tensors, "c_history": None, "c_neighbours": None}).numpy()
    files = sorted((finished_run / "model").glob("trees_*.txt"))
    boosters = [lightgbm.Booster(model_file=str(file)) for file in files]
    assert len(boosters) == 2
    features = task.arrays.features[rows]
    assert np.isnan(features).any()
    trees = np.mean([b.predict(features, raw_score=True) for b in boosters], axis=0)
    facts = json.loads((finished_run / "model" / "model.json").read_text())["stack"]
    stack = Stack(facts["weight"], facts["bias"], np.empty(0), np.empty(0))
    expected = stack.score({"lstm_gat": network, "lightgbm": trees})
    assert np.abs(exportable.source.run(inputs)["logit"] - expected).max() < TOLERANCE


def test_categories_reach_the_trees_as_they_were_trained_on(small_world, small_inputs):
    rng = np.random.default_rng(0)
    n = len(small_world)
    codes = rng.integers(0, 9, (n, 2)).astype(np.float32)
    codes[rng.random(codes.shape) < 0.2] = np.nan
    names = (*small_inputs.feature_names, "one", "two")
    width = len(names)
    inputs = replace(
        small_inputs,
        features=np.concatenate([small_inputs.features, codes], axis=1),
        feature_names=names,
        categorical=(width - 2, width - 1),
    )
    arrays = arrays_of(small_world, inputs)
    rows = np.arange(n - 200, n)
    tensors = {
        "x_history": torch.from_numpy(arrays.features[np.maximum(arrays.history[rows], 0)]),
        "c_history": torch.from_numpy(arrays.codes[np.maximum(arrays.history[rows], 0)]).long(),
    }
    assert np.array_equal(columns(tensors).numpy(), inputs.features[rows], equal_nan=True)
    label = (codes[:, 0] % 3 == 1).astype(np.float32)
    data = lightgbm.Dataset(inputs.features, label, categorical_feature=[width - 2, width - 1])
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 5)
    trees = TreeEnsemble(read_trees(booster.model_to_string()), width)
    assert trees.has_categories
    network = LstmGat(LstmGatConfig(graph="off"), width - 2, 2, torch.zeros(32)).eval()
    tensors["history_mask"] = torch.from_numpy(arrays.history[rows] >= 0)
    tensors["history_gap"] = torch.zeros(len(rows), arrays.history.shape[1])
    tensors["history_status"] = torch.from_numpy(arrays.history_status[rows]).long()
    scorer = Scorer(network, trees, (0.5, 2.0), -0.1, tuple(tensors))
    with torch.no_grad():
        got = scorer(*tensors.values()).numpy()
        expected = 0.5 * network(tensors).numpy() - 0.1
    expected = expected + 2.0 * booster.predict(inputs.features[rows], raw_score=True)
    assert np.abs(got - expected).max() < TOLERANCE


def test_drawn_inputs_are_like_the_samples_but_none_of_them(finished_run):
    samples = read_samples(finished_run)
    drawn = mix(samples, {"batch": 50}, np.random.default_rng(0))
    for name, value in samples.items():
        assert drawn[name].shape == (50, *value.shape[1:])
        assert drawn[name].dtype == value.dtype
    amount = samples["x_history"][..., 0]
    assert amount.min() * 0.99 <= drawn["x_history"][..., 0].min()
    assert drawn["x_history"][..., 0].max() <= amount.max() * 1.01
    real = {row.tobytes() for row in samples["x_history"]}
    assert not real & {row.tobytes() for row in drawn["x_history"]}
    again = mix(samples, {"batch": 50}, np.random.default_rng(0))
    assert all(np.array_equal(again[name], drawn[name], equal_nan=True) for name in drawn)


def test_the_metric_ranks_validation_rows_and_no_test_row(finished_run, exportable, period):
    cfg = read_config(yaml.safe_load((finished_run / "config.yaml").read_text()))
    task, rows = last_period(cfg, 10**9, "validation")
    assert not np.intersect1d(rows, period[1]).size
    expected = average_precision_score(
        task.arrays.label[rows], logits(exportable.source, task, rows)
    )
    found = exportable.metric(exportable.source.run)
    assert found[exportable.metric_name] == pytest.approx(expected, abs=1e-3)


def test_a_run_that_does_not_hold_what_is_needed_is_refused(finished_run, tmp_path):
    with pytest.raises(ValueError, match=r"has no model/model\.json; name a finished run"):
        open_run(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text('{"stack": {}}')
    with pytest.raises(ValueError, match=r"does not say num_features, .*threshold; train again"):
        open_run(tmp_path)


def test_the_config_of_a_run_is_read_back(finished_run):
    cfg = read_config(yaml.safe_load((finished_run / "config.yaml").read_text()))
    assert isinstance(cfg, FraudTrainConfig)
    assert (cfg.data.num_customers, cfg.split.num_periods, cfg.trainer.smoke) == (2000, 1, True)
