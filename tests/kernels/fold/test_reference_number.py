"""The fold's own arithmetic against the machine's; the native code has the same bits (parity)."""

import math
import sys

import numpy as np
import pytest

from kernels.fold.reference_number import decay, exp2_negative, log2_positive

RANDOM = np.random.default_rng(0)


# A polynomial of 13 steps rounds a few times: 4 units in the last place.
def test_exp2_is_as_exact_as_doubles_allow():
    values = [0.0, 1.0, 0.5, 999.0, *RANDOM.uniform(0, 1, 5000), *RANDOM.uniform(0, 1000, 5000)]
    for x in map(float, values):
        assert exp2_negative(x) == pytest.approx(math.exp2(-x), rel=4 * sys.float_info.epsilon)


def test_exp2_is_exact_at_whole_numbers_and_defined_everywhere():
    assert [exp2_negative(float(n)) for n in range(1000)] == [2.0**-n for n in range(1000)]
    assert [exp2_negative(x) for x in (1000.0, 1e300, math.inf, math.nan)] == [0.0] * 4
    assert [exp2_negative(x) for x in (-0.0, -1.0, -math.inf)] == [1.0] * 3


def test_log2_is_as_exact_as_doubles_allow():
    near_one = 1.0 + RANDOM.uniform(0, 1, 5000) * 10.0 ** RANDOM.integers(-15, 0, 5000)
    wide = 2.0 ** RANDOM.uniform(0, 1023, 5000)
    for x in map(float, [1.0, 2.0, math.sqrt(2), sys.float_info.max, *near_one, *wide]):
        assert log2_positive(x) == pytest.approx(math.log2(x), rel=4 * sys.float_info.epsilon)


def test_log2_is_exact_at_powers_of_two():
    assert [log2_positive(2.0**n) for n in range(1024)] == list(range(1024))


@pytest.mark.parametrize("elapsed_s", [0, 1, 3600, 86_400, 5_000_000, 10**9])
def test_decay_halves_at_each_half_life(elapsed_s):
    days = elapsed_s / 86_400
    wanted = (2.0 ** -(days * 24), 2.0**-days, 2.0 ** -(days / 8), 2.0 ** -(days / 32))
    # Squaring doubles the relative error, up to 24 * 32 times from one half-life to the other.
    assert decay(elapsed_s) == pytest.approx(wanted, rel=1e-12, abs=1e-300)
