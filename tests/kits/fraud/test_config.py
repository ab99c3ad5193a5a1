import pytest

from kits.fraud.config import SPLITS, FraudTrainConfig, SplitConfig
from kits.fraud.data.config import HandbookData, RingsData, SFfsdData


@pytest.mark.parametrize("data", [HandbookData(), RingsData(), SFfsdData(path="x")])
def test_an_open_split_is_the_protocol_of_the_source(data):
    split = FraudTrainConfig(data=data).split
    for name, value in SPLITS[data.name].items():
        assert getattr(split, name) == value


def test_a_given_value_stays_and_the_rest_is_filled():
    split = FraudTrainConfig(split=SplitConfig(train_days=7.0)).split
    assert (split.train_days, split.first_test, split.num_periods) == (7.0, "2018-07-18", 4)


def test_a_given_test_day_takes_the_place_of_the_share():
    cfg = FraudTrainConfig(data=SFfsdData(path="x"), split=SplitConfig(first_test="1970-02-20"))
    assert cfg.split.test_share is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first_test": "2018-07-18", "test_share": 0.2}, "name two test sets"),
        ({"test_share": 1.5}, "not in"),
        ({"refresh_days": 0.0}, r"split\.refresh_days=0\.0 is not positive"),
        ({"first_test": "July"}, "Invalid isoformat"),
    ],
)
def test_a_split_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SplitConfig(**values)


def test_an_unknown_baseline_names_the_legal_ones():
    with pytest.raises(ValueError, match="baselines='svm' is not one of logistic, random_forest"):
        FraudTrainConfig(baselines=["svm"])
