import numpy as np
import pytest

from kits.defect.metrics.pod import fit, pod_metrics


def drawn(number, seed=0, intercept=6.0, slope=4.0):
    """Hits of a true curve whose a90 is exp((ln 9 - 6) / 4) = 0.386 mm."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.05, 1.0, number)
    probability = 1 / (1 + np.exp(-(intercept + slope * np.log(size))))
    return size.tolist(), (rng.random(number) < probability).tolist()


def test_the_curve_of_many_defects_is_the_true_one():
    curve = fit(*drawn(20_000))
    assert curve.intercept == pytest.approx(6, rel=0.05)
    assert curve.slope == pytest.approx(4, rel=0.05)
    found = pod_metrics(*drawn(20_000))
    assert found["a90"] == pytest.approx(0.386, rel=0.03)
    assert found["a90"] < found["a90_95"] < 0.42


def test_fewer_defects_prove_less():
    few, many = pod_metrics(*drawn(150)), pod_metrics(*drawn(3000))
    assert few["a90_95"] / few["a90"] > many["a90_95"] / many["a90"]


def test_the_bound_covers_as_often_as_it_says():
    found = [pod_metrics(*drawn(400, seed)) for seed in range(60)]
    assert np.mean([one["a90_95"] >= 0.386 for one in found]) >= 0.85


@pytest.mark.parametrize(
    ("sizes", "is_hit"),
    [
        ([0.1 * k for k in range(1, 21)], [True] * 20),
        ([0.5] * 20, [True, False] * 10),
        ([0.1, 0.2], [True, False]),
        ([0.1 * k for k in range(1, 21)], [k > 10 for k in range(20)]),
        ([0.1 * k for k in range(1, 21)], [k < 10 for k in range(20)]),
    ],
    ids=["all hit", "one size", "too few", "a step", "the smaller the better"],
)
def test_data_that_tell_no_curve_give_none(sizes, is_hit):
    assert pod_metrics(sizes, is_hit) == {}


def test_a_size_beyond_all_that_were_seen_is_not_told():
    # Its a90 would be 0.386 mm.
    sizes, is_hit = drawn(4000)
    small = [(size, hit) for size, hit in zip(sizes, is_hit, strict=True) if size < 0.3]
    assert fit(*zip(*small, strict=True)) is not None
    assert pod_metrics(*zip(*small, strict=True)) == {}
