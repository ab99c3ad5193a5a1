import numpy as np
import pytest

from kits.fraud.stack import Stack


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    label = (rng.random(4000) < 0.1).astype(int)
    return {
        "good": rng.normal(size=4000) + 3 * label,
        "weak": rng.normal(size=4000) + label,
    }, label


def test_the_blend_ranks_better_than_its_parts(logits):
    from sklearn.metrics import roc_auc_score

    parts, label = logits
    blended = Stack.fit(parts, label).score(parts)
    assert roc_auc_score(label, blended) > max(roc_auc_score(label, p) for p in parts.values())


def test_a_part_that_only_hurts_gets_no_weight(logits):
    parts, label = logits
    stack = Stack.fit(parts | {"weak": -parts["good"] + parts["weak"] * 0.01}, label)
    assert all(weight >= 0 for weight in stack.weight.values())


def test_probabilities_are_calibrated_and_rise_with_the_score(logits):
    parts, label = logits
    stack = Stack.fit(parts, label)
    blended = stack.score(parts)
    probability = stack.probability(blended)
    assert probability.mean() == pytest.approx(label.mean(), abs=0.005)
    assert (np.diff(probability[np.argsort(blended)]) >= 0).all()
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_one_part_alone_keeps_its_order(logits):
    parts, label = logits
    blended = Stack.fit({"good": parts["good"]}, label).score({"good": parts["good"]})
    inside = np.abs(parts["good"]) < 12
    assert (np.argsort(blended[inside]) == np.argsort(parts["good"][inside])).all()
