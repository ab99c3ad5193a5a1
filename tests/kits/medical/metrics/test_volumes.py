import pytest

from kits.medical.metrics.volumes import Volumes, volume_metrics


def test_errors_are_shares_of_the_consensus_and_bias_has_a_sign():
    found = volume_metrics([Volumes("a", 110, 100, (80, 120)), Volumes("b", 80, 100, (100, 100))])
    assert found["volume_error_percent"] == pytest.approx(15)
    assert found["volume_error_median_percent"] == pytest.approx(15)
    assert found["volume_bias_percent"] == pytest.approx(-5)
    assert found["human_volume_error_percent"] == pytest.approx(10)
    assert found["human_volume_cv_percent"] == pytest.approx(10)
    assert found["volume_error_percent.low"] == pytest.approx(10)
    assert found["volume_error_percent.high"] == pytest.approx(20)


def test_one_reader_has_no_spread():
    found = volume_metrics([Volumes("a", 110, 100, (100,))])
    assert "human_volume_cv_percent" not in found


def test_nodules_without_a_consensus_have_no_error():
    with pytest.raises(ValueError, match="no nodule has a consensus"):
        volume_metrics([Volumes("a", 10, 0, (3, 4))])
