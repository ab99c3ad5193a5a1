import numpy as np

from core.train.config import OptimConfig, TrainerConfig
from kits.fraud.config import SPLITS, FraudTrainConfig, SplitConfig
from kits.fraud.model_config import LstmGatConfig
from kits.fraud.neural import NeuralModels, arrays_of
from kits.fraud.split import plan


def test_networks_score_the_rows_after_each_training_and_train_on(
    small_world, small_inputs, tmp_path
):
    cfg = FraudTrainConfig(
        trainer=TrainerConfig(max_steps=2, metric=None, progress=False, tensorboard=False),
        optim=OptimConfig(warmup_steps=100),
        model=LstmGatConfig(batch_size=32),
        baselines=["lstm"],
        controls=["shuffled"],
    )
    split = SplitConfig(**(SPLITS["table"] | {"num_periods": 1}))
    refreshes = plan(small_world, small_inputs.visible_s, split).refreshes[:2]
    networks = NeuralModels(cfg, small_world, small_inputs, tmp_path)
    assert networks.names == ["lstm_gat", "lstm", "lstm_gat_shuffled"]
    for refresh in refreshes:
        logit = networks.fit_and_score("lstm_gat", refresh, 0)
        assert logit.shape == refresh.score.shape
        assert np.isfinite(logit).all()
    days = sorted(path.name for path in (tmp_path / "lstm_gat").iterdir())
    assert len(days) == 2
    for day in days:
        assert any((tmp_path / "lstm_gat" / day).iterdir())


def test_arrays_share_the_memory_of_the_inputs(small_world, small_inputs):
    arrays = arrays_of(small_world, small_inputs)
    assert np.shares_memory(arrays.features, small_inputs.features)
    assert arrays.codes.shape == (len(small_world), 0)
    assert len(arrays.feature_names) == arrays.features.shape[1]
