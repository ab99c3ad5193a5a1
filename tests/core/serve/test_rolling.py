import math
import random

import numpy as np
import pytest

from core.serve.rolling import RollingQuantile


def test_it_is_within_one_percent_of_the_true_quantile():
    random.seed(7)
    rolling = RollingQuantile(60)
    values = [random.lognormvariate(-6, 1.5) for _ in range(20_000)]
    for index, value in enumerate(values):
        rolling.add(value, 100 + index / 1000)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999, 1.0):
        true = np.quantile(values, share, method="inverted_cdf")
        assert rolling.quantile(share, 120) == pytest.approx(true, rel=0.0101)


def test_nothing_seen_gives_nan():
    assert math.isnan(RollingQuantile(60).quantile(0.99, 0))


@pytest.mark.parametrize("begin", [0.0, 3.9, 1e6])
def test_values_leave_after_the_window(begin):
    rolling = RollingQuantile(60)
    rolling.add(5.0, begin)
    for second in range(1, 55):
        rolling.add(0.1, begin + second)
        assert rolling.quantile(1.0, begin + second) == pytest.approx(5.0, rel=0.01)
    rolling.add(0.1, begin + 60)
    assert rolling.quantile(1.0, begin + 60) == pytest.approx(0.1, rel=0.01)
    assert math.isnan(rolling.quantile(0.99, begin + 121))


def test_the_far_ends_are_clipped():
    rolling = RollingQuantile(60)
    for value in (0.0, 1e-9, -1.0):
        rolling.add(value, 0)
    assert rolling.quantile(1.0, 0) == pytest.approx(1e-5, rel=0.02)
    rolling.add(1e6, 0)
    assert rolling.quantile(1.0, 0) == pytest.approx(1e3, rel=0.02)


def test_one_slow_value_in_fifty_is_the_99th_percentile_and_one_in_two_hundred_is_not():
    for num, expected in ((50, 2.0), (200, 0.01)):
        rolling = RollingQuantile(60)
        for index in range(num):
            rolling.add(2.0 if index == 0 else 0.01, 0)
        assert rolling.quantile(0.99, 0) == pytest.approx(expected, rel=0.01)
