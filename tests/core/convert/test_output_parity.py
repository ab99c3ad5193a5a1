import json
import math

import numpy as np
import pytest

from core.convert.output_parity import compare_output
from edge.target import Tolerance

TOLERANCE = Tolerance(1e-3, 1e-2, "literal")


def test_statistics_of_a_small_example():
    expected = np.array([0, 1, -2, 4], np.float32)
    found = compare_output("y", expected, expected + np.float32([0, 0.01, 0, -0.02]), TOLERANCE)
    assert found.passed
    assert found.max_absolute == pytest.approx(0.02, rel=1e-4)
    assert found.mean_absolute == pytest.approx(0.0075, rel=1e-4)
    assert found.p99_absolute == pytest.approx(0.01 + 0.01 * 0.97, rel=1e-3)
    assert found.violation == pytest.approx(0.01 / 0.011, rel=1e-3)
    assert 0.9999 < found.cosine < 1


def test_the_tolerance_is_absolute_plus_relative():
    edge = np.array([10.0])
    allowed = TOLERANCE.absolute + TOLERANCE.relative * 10
    assert compare_output("y", edge, edge + 0.999 * allowed, TOLERANCE).passed
    assert not compare_output("y", edge, edge + 1.001 * allowed, TOLERANCE).passed


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_have_to_stand_at_the_same_places(special):
    expected = np.array([1, special, 3])
    same = compare_output("y", expected, expected.copy(), TOLERANCE)
    assert same.passed
    assert same.max_absolute == 0
    for other in ([1, 2, 3], [special, special, 3], [1, special, special]):
        found = compare_output("y", expected, np.array(other, float), TOLERANCE)
        assert "other places" in found.problem


def test_infinity_of_the_other_sign_fails():
    found = compare_output("y", np.array([1, math.inf]), np.array([1, -math.inf]), TOLERANCE)
    assert not found.passed


def test_an_output_without_information_does_not_pass_for_equal():
    nothing = np.full(3, math.nan)
    assert "nothing is compared" in compare_output("y", nothing, nothing, TOLERANCE).problem


def test_integers_and_booleans_are_exact_and_empty_outputs_pass():
    ids = np.array([30000, 5])
    assert compare_output("ids", ids, ids, TOLERANCE).passed
    assert compare_output("ids", ids, ids + np.array([1, 0]), TOLERANCE).violation == math.inf
    flags = np.array([True, False])
    assert "1 of 2 values differ" in compare_output("f", flags, flags | True, TOLERANCE).problem
    empty = compare_output("boxes", np.zeros((0, 4)), np.zeros((0, 4)), TOLERANCE)
    assert empty.passed
    assert empty.cosine is None


def test_large_integers_are_told_apart():
    near = np.array([2**60], np.int64)
    assert not compare_output("ids", near, near + 1, TOLERANCE).passed


def test_what_is_not_finite_becomes_none():
    found = compare_output("ids", np.array([1]), np.array([2]), TOLERANCE).to_json()
    assert found["violation"] is None
    assert found["passed"] is False
    json.dumps(found, allow_nan=False)
