"""A small real world: the handbook simulator with few customers, folded once for all tests."""

import pytest

from core.train.config import OptimConfig, TrainerConfig
from kits.fraud.config import FraudTrainConfig, SplitConfig, TreesConfig
from kits.fraud.data import load_events
from kits.fraud.data.config import HandbookData
from kits.fraud.features import build_inputs
from kits.fraud.model_config import LstmGatConfig
from kits.fraud.prequential import run_prequential


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


def smoke_config(folder):
    return FraudTrainConfig(
        trainer=TrainerConfig(
            max_steps=4, metric=None, smoke=True, progress=False, tensorboard=False,
            runs_dir=str(folder / "runs"), num_threads=1,
        ),
        optim=OptimConfig(lr=2e-3, warmup_steps=1),
        data=HandbookData(
            num_customers=2000, num_terminals=4000, radius=8.0, num_days=122,
            terminals_per_day=1, customers_per_day=1, cache_dir=str(folder / "cache"),
        ),
        model=LstmGatConfig(batch_size=64),
        split=SplitConfig(short_window_days=7.0, num_periods=1),
        trees=TreesConfig(max_rounds=100, num_seeds=2),
        controls=["shuffled"],
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A run of a few steps with every baseline: the one training that the kit's tests share."""
    return run_prequential(smoke_config(tmp_path_factory.mktemp("fraud")))


@pytest.fixture
def run_again(tmp_path):
    """Train once more with the settings of `finished_run`."""
    return lambda: run_prequential(smoke_config(tmp_path))
