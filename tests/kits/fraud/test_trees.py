import lightgbm
import numpy as np
import pytest
import torch

from kits.fraud.trees import TreeEnsemble, read_ensemble, read_trees, round_down

# Leaf values are added in float32 here and in float64 by LightGBM.
TOLERANCE = 1e-5
ROWS = 1500


def rows(seed=0, codes=40):
    """Numeric columns with zeros and gaps, and two categorical ones with gaps."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, 6)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1] * 2)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.1] = 0
    x[:, 4] = rng.integers(0, codes, ROWS)
    x[:, 5] = rng.integers(0, 5, ROWS)
    x[rng.random(ROWS) < 0.1, 4] = np.nan
    odds = np.nan_to_num(x[:, 0]) + (x[:, 4] % 3 == 1) + np.isnan(x[:, 2]) + (x[:, 3] == 0)
    return x, (odds + rng.normal(size=ROWS) > 1.2).astype(np.float32)


def trained(x, y, categorical=(4, 5), **parameters):
    fixed = {"objective": "binary", "verbose": -1, "num_leaves": 15, "num_threads": 1,
             "min_data_in_leaf": 5, "min_data_per_group": 5, "cat_smooth": 1}  # fmt: skip
    data = lightgbm.Dataset(x, y, categorical_feature=list(categorical))
    return lightgbm.train(fixed | parameters, data, 25)


def scores(ensemble, x):
    with torch.no_grad():
        return ensemble(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"max_cat_to_onehot": 64},
        {"num_leaves": 2},
    ],
    ids=["default", "zero_as_missing", "no_missing", "one_category_a_split", "stumps"],
)
def test_trees_score_as_lightgbm_does(parameters):
    x, y = rows()
    booster = trained(x, y, **parameters)
    ensemble = TreeEnsemble(read_trees(booster.model_to_string()), x.shape[1])
    # Unseen, negative, fractional, missing and infinite values among them.
    x[:200] = rows(1, codes=90)[0][:200]
    x[:5, 4] = (-1, -0.5, 300, 7.9, 1e9)
    x[5:9, 0] = (np.inf, -np.inf, np.nan, 1e-38)
    assert np.abs(scores(ensemble, x) - booster.predict(x, raw_score=True)).max() < TOLERANCE


def test_a_value_on_the_threshold_goes_where_lightgbm_sends_it():
    x, y = rows()
    booster = trained(x, y, categorical=())
    trees = read_trees(booster.model_to_string())
    near = np.concatenate([round_down(tree.threshold) for tree in trees])
    for step in (-np.inf, np.inf):
        for values in (near, np.nextafter(near, np.float32(step))):
            probe = np.repeat(values[:, None], x.shape[1], 1)
            expected = booster.predict(probe, raw_score=True)
            assert np.abs(scores(TreeEnsemble(trees, 6), probe) - expected).max() < TOLERANCE


def test_thresholds_are_rounded_so_that_no_float32_changes_sides():
    threshold = np.array([0.1, -0.1, 1e-30, -1e-30, 1.7e308, -1.7e308, np.inf, 2.0])
    low = round_down(threshold)
    assert (low.astype(np.float64) <= threshold).all()
    with np.errstate(over="ignore"):
        above = np.nextafter(low, np.float32(np.inf))
    assert (above.astype(np.float64) >= threshold).all()


def test_a_tree_without_a_split_gives_its_value():
    x, y = rows()
    booster = trained(x, y, min_data_in_leaf=ROWS)
    ensemble = TreeEnsemble(read_trees(booster.model_to_string()), x.shape[1])
    assert np.abs(scores(ensemble, x) - booster.predict(x, raw_score=True)).max() < TOLERANCE


def test_several_models_are_averaged(tmp_path):
    x, y = rows()
    boosters = [trained(x, y, num_leaves=size) for size in (4, 9)]
    for number, booster in enumerate(boosters):
        booster.save_model(str(tmp_path / f"trees_{number}.txt"), num_iteration=10 + number)
    expected = np.mean(
        [b.predict(x, raw_score=True, num_iteration=10 + n) for n, b in enumerate(boosters)], axis=0
    )
    assert np.abs(scores(read_ensemble(tmp_path, 6), x) - expected).max() < TOLERANCE


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"objective": "multiclass", "num_class": 2}, "num_class=2 is not 1"),
        ({"linear_tree": True}, "is_linear=1 has no conversion"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "average_output"),
    ],
)
def test_what_cannot_be_converted_is_refused(parameters, message):
    x, y = rows()
    with pytest.raises(ValueError, match=message):
        read_trees(trained(x, y, **parameters).model_to_string())


def test_trees_of_other_features_are_refused(tmp_path):
    x, y = rows()
    with pytest.raises(ValueError, match="the events have 2"):
        TreeEnsemble(read_trees(trained(x, y).model_to_string()), 2)
    with pytest.raises(ValueError, match=r"has no trees_\*\.txt"):
        read_ensemble(tmp_path, 6)
