import numpy as np
import pytest

from kits.fraud.baselines import TABULAR, Trees, sample_rows
from kits.fraud.config import TREES, FraudTrainConfig, TreesConfig


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 6)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] + rng.normal(scale=0.3, size=3000) > 1.5).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    return x, y, np.ones(3000)


@pytest.mark.parametrize("name", TABULAR)
def test_a_baseline_ranks_what_can_be_learned_and_scores_are_finite(name, table):
    from sklearn.metrics import roc_auc_score

    x, y, weight = table
    score = TABULAR[name](x, y, weight, 0, 0.2)(x)
    assert np.isfinite(score).all()
    assert roc_auc_score(y, score) > 0.9


@pytest.mark.parametrize("name", TABULAR)
def test_the_same_seed_gives_the_same_scores(name, table):
    x, y, weight = table
    one, two = (TABULAR[name](x, y, weight, 7, 0.2)(x) for _ in range(2))
    assert np.array_equal(one, two)


def test_trees_follow_their_number_of_rounds(table):
    x, y, weight = table
    cfg = TreesConfig(**TREES["s_ffsd"])
    trees = Trees(cfg, (), 0).fit(x, y, weight, 30)
    assert len(trees.boosters) == cfg.num_seeds
    assert trees.boosters[0].num_trees() == 30
    assert not np.array_equal(trees.score(x, 5), trees.score(x, 30))
    assert trees.importance().sum() == pytest.approx(1.0)
    assert trees.importance().argmax() == 0


def test_every_fraud_is_sampled_and_weights_restore_the_count():
    label = np.zeros(1000, np.int8)
    label[::50] = 1
    rows, weight = sample_rows(np.arange(1000), label, 3.0, 0)
    assert set(np.flatnonzero(label)) <= set(rows)
    assert (label[rows] == 0).sum() == 60
    assert weight.sum() == pytest.approx(1000)
    assert (np.diff(rows) > 0).all()


def test_more_legitimate_rows_than_there_are_means_all_of_them():
    label = np.array([0, 1, 0, 0], np.int8)
    rows, weight = sample_rows(np.arange(4), label, 99.0, 0)
    assert rows.tolist() == [0, 1, 2, 3]
    assert weight.tolist() == [1.0] * 4


def test_open_tree_settings_are_taken_from_the_source():
    assert FraudTrainConfig().trees.num_leaves == TREES["handbook"]["num_leaves"]
    assert FraudTrainConfig(trees=TreesConfig(num_leaves=7)).trees.num_leaves == 7
    with pytest.raises(ValueError, match=r"trees\.num_leaves=-1 is not positive"):
        TreesConfig(num_leaves=-1)
