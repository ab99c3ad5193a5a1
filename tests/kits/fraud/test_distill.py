"""The fraud network distilled: a narrower LstmGat learns from a wide one."""

import numpy as np
import pytest
import torch

from core.compress.config import DistillConfig, FeatureConfig, OutputLossConfig, RelationConfig
from core.compress.distill import STATE, distill
from core.train.config import OptimConfig, TrainConfig, TrainerConfig
from core.train.trainer import Trainer
from kits.fraud.model_config import LstmGatConfig
from kits.fraud.task import FraudTask, predict_logits
from tests.kits.fraud.test_task import SMALL, fit, halves, world

TINY = {**SMALL, "event_width": 8, "hidden_width": 8, "graph_width": 4, "head_width": 8}
# Logits: how sure, as the teacher is; the sequence's end and the neighbours' summary.
CFG = DistillConfig(
    outputs={"output": OutputLossConfig(temperature=2.0)},
    features=[FeatureConfig("lstm", "lstm", weight=0.2)],
    relations=[RelationConfig("gat", "gat", weight=0.2)],
)


@pytest.fixture(scope="module")
def arrays():
    """Labels that the current event tells, in part."""
    made = world(600)
    rng = np.random.default_rng(1)
    made.label[:] = made.features[:, 0] + rng.normal(0, 0.7, len(made)) > 1
    return made


@pytest.fixture(scope="module")
def teacher(arrays):
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**SMALL))
    fit(task, 4)
    return task.model


def test_a_narrow_network_follows_a_wide_one(arrays, teacher, tmp_path):
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**TINY))
    rows = task.rows["validation"]
    batches = [task.collate(rows)]
    wanted = predict_logits(teacher, batches)
    before = np.abs(predict_logits(task.model, batches) - wanted).mean()
    keys = list(task.model.state_dict())
    cfg = TrainConfig(
        TrainerConfig(epochs=6, metric="ap", metric_mode="max", progress=False, tensorboard=False),
        OptimConfig(lr=0.01),
    )
    with distill(task, teacher, CFG) as distilled:
        first = distilled.step(next(iter(distilled.batches("train")))).logs
        Trainer(distilled, cfg, run_dir=tmp_path).fit()
        last = distilled.step(next(iter(distilled.batches("train")))).logs
    assert list(task.model.state_dict()) == keys
    assert STATE not in dict(task.model.named_children())
    assert np.abs(predict_logits(task.model, batches) - wanted).mean() < 0.7 * before
    for name in ("distill/output", "distill/feature/lstm", "distill/relation/gat"):
        assert last[name] < first[name]


def test_the_teachers_logits_are_those_of_the_full_data(arrays, teacher):
    # The task shifts logits to its sample's odds while it trains; neither network's own is shifted.
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**{**SMALL, "legitimate_per_fraud": 1}))
    task.model.load_state_dict(teacher.state_dict())
    with distill(task, teacher, DistillConfig(outputs=CFG.outputs)) as distilled:
        step = distilled.step(next(iter(distilled.batches("train"))))
    assert step.logs["distill/output"] == pytest.approx(0, abs=1e-6)


def test_opinions_of_events_can_be_kept(arrays, teacher, tmp_path):
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**TINY))
    plain, kept = (
        DistillConfig(outputs=CFG.outputs, cache_dir=folder) for folder in (None, str(tmp_path))
    )
    losses = []
    for cfg in (plain, kept, kept):
        with distill(task, teacher, cfg) as distilled:
            torch.manual_seed(0)
            batches = distilled.batches("train")
            losses.append([distilled.step(batch).loss.item() for batch in batches])
    assert distilled.teacher.cache.misses == 0
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[2] == losses[1]
