"""A small real world: the handbook simulator with few customers, folded once for all tests."""

import pytest

from kits.fraud.data import load_events
from kits.fraud.data.config import HandbookData
from kits.fraud.features import build_inputs


@pytest.fixture(scope="session")
def small_world(tmp_path_factory):
    cfg = HandbookData(
        num_customers=150,
        num_terminals=200,
        num_days=112,
        radius=15.0,
        terminals_per_day=1,
        customers_per_day=1,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )
    return load_events(cfg)


@pytest.fixture(scope="session")
def small_inputs(small_world):
    return build_inputs(small_world, 7.0)
