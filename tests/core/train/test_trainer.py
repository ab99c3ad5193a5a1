import json
import math
import random

import numpy as np
import pytest
import torch

from core.train.callbacks import Callback
from core.train.checkpoint import load_weights
from core.train.randomness import seed_all
from core.train.trainer import Trainer
from tests.core.train.tiny import TinyTask, settings, train

# Sums in another order differ in the last bits of fp32, and Adam divides by small numbers.
FP32_SUMS = 2e-5


class Crash(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, step, loss):
        if step == self.step:
            raise InterruptedError("crash")


def weights(task):
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def test_fit_lowers_the_loss_and_leaves_the_best_weights(tmp_path):
    task = TinyTask()
    trainer = Trainer(task, settings({"epochs": 12}, {"lr": 0.02}), run_dir=tmp_path)
    before = task.evaluate("validation")["loss"]
    best = trainer.fit()
    assert trainer.step == 12 * 6
    after = task.evaluate("validation")["loss"]
    assert after < before / 4
    assert after == trainer.best
    other = TinyTask()
    load_weights(best, other.model)
    assert torch.equal(weights(other), weights(task))


def test_accumulated_batches_equal_the_big_batch(tmp_path):
    big = train(tmp_path / "big", TinyTask(batch_size=32), {"epochs": 4})
    # 8 does not divide the epoch's last step of 4 batches: 100 = 3 x 32 + 4.
    small = train(tmp_path / "small", TinyTask(batch_size=8), {"epochs": 4, "accumulate": 4})
    np.testing.assert_allclose(small, big, rtol=FP32_SUMS)
    big = train(tmp_path / "big rest", TinyTask(batch_size=32, num=100), {"epochs": 3})
    task = TinyTask(batch_size=8, num=100)
    small = train(tmp_path / "small rest", task, {"epochs": 3, "accumulate": 4})
    assert len(big) == 3 * 4
    np.testing.assert_allclose(small, big, rtol=FP32_SUMS)


@pytest.mark.parametrize(
    ("trainer", "optim"),
    [
        ({}, {"warmup_steps": 5, "ema_decay": 0.9}),
        ({"accumulate": 2, "evaluate_every_steps": 4}, {"schedule": "warm_restarts"}),
        ({"precision": "fp16"}, {"name": "sgd", "lr": 0.01, "schedule": "constant"}),
        ({"precision": "bf16", "patience": 3}, {"restart_steps": 3, "clip_norm": None}),
    ],
)
def test_a_resumed_run_repeats_the_unbroken_one_bit_for_bit(tmp_path, trainer, optim):
    trainer = {"epochs": 4, "checkpoint_every_steps": 5, **trainer}
    task = TinyTask(dropout=0.2)
    unbroken = train(tmp_path / "unbroken", task, trainer, optim)
    crash = random.Random(str(tmp_path)).randrange(6, len(unbroken))
    with pytest.raises(InterruptedError):
        train(tmp_path / "broken", TinyTask(dropout=0.2), trainer, optim, [Crash(crash)])
    # The generators stand elsewhere now.
    seed_all(9)
    other = TinyTask(dropout=0.2)
    resumed = train(tmp_path / "broken", other, trainer, optim)
    assert resumed == unbroken
    assert torch.equal(weights(other), weights(task))
    states = [
        json.loads((tmp_path / name / "checkpoints" / "best" / "state.json").read_text())
        for name in ("unbroken", "broken")
    ]
    assert states[0] == states[1]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(tmp_path, trainer={"epochs": 2})
    assert train(tmp_path, trainer={"epochs": 2}) == first


def test_resume_refuses_other_settings(tmp_path):
    train(tmp_path, trainer={"epochs": 1})
    with pytest.raises(ValueError, match=r"optim\.lr=0\.5 is not what .* \(0\.001\)"):
        train(tmp_path, trainer={"epochs": 1}, optim={"lr": 0.5})


def test_nan_stops_with_the_step_and_the_samples(tmp_path):
    with pytest.raises(FloatingPointError, match=r"loss=nan at step \d+ .*42.*lower") as caught:
        train(tmp_path, TinyTask(batch_size=4, bad_sample=42), {"epochs": 1})
    facts = json.loads((tmp_path / "not_finite.json").read_text())
    assert f"step {facts['step']} " in str(caught.value)
    assert 42 in facts["ranks"][0]["samples"]
    assert len(facts["ranks"][0]["samples"]) == 4
    # The curve ends before: no weight of a checkpoint has seen it.
    assert len((tmp_path / "curve.txt").read_text().splitlines()) == facts["step"] - 1


def test_loss_scaling_survives_an_infinite_gradient(tmp_path):
    # fp32 holds the squared error of 1e6 and its gradient; times the scale fp16 does not.
    task = TinyTask(batch_size=8, bad_sample=3, bad_value=1e6)
    scales, weights_seen = [], []

    class Watch(Callback):
        def on_step(self, trainer, step, loss):
            scales.append(trainer._scaler.get_scale())
            weights_seen.append(weights(task))

    curve = train(
        tmp_path, task, {"epochs": 2, "precision": "fp16"}, {"schedule": "constant"}, [Watch()]
    )
    assert len(curve) == 24
    assert all(math.isfinite(loss) for loss in curve)
    worst = curve.index(max(curve))
    assert scales[worst] == scales[worst - 1] / 2
    assert torch.equal(weights_seen[worst], weights_seen[worst - 1])
    assert not torch.equal(weights_seen[worst + 1], weights_seen[worst])


def test_fp16_stops_when_no_gradient_is_finite_any_more(tmp_path):
    task = TinyTask(bad_sample=list(range(96)), bad_value=1e12)
    with pytest.raises(FloatingPointError, match=r"loss scale=.* set trainer\.precision=bf16"):
        train(tmp_path, task, {"epochs": 20, "precision": "fp16", "log_every_steps": 5})


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_measured_choices_leave_the_run_unchanged(tmp_path, precision):
    seen = []

    class Watch(Callback):
        def on_message(self, trainer, text):
            seen.append((text, trainer.candidate.precision))

    cfg = {"epochs": 3, "precision": precision, "measure_steps": 3, "compile": "off"}
    optim = {"warmup_steps": 3, "ema_decay": 0.9}
    measured = train(tmp_path / "a", TinyTask(dropout=0.2), cfg, optim, [Watch()])
    taken = seen[0][1] if precision == "auto" else "fp32"
    plain = train(tmp_path / "b", TinyTask(dropout=0.2), {"epochs": 3, "precision": taken}, optim)
    assert measured == plain
    if precision == "auto":
        assert seen[0][0].startswith("measured fp32: ")
        rows = json.loads((tmp_path / "a" / "measured.json").read_text())
        assert [row["precision"] for row in rows] == ["fp32", "bf16", "fp16"]
        assert all(row["step_ms"] > 0 for row in rows if not row["failure"])


def test_batches_may_be_any_iterable(tmp_path):
    class Listed(TinyTask):
        def batches(self, split):
            return [(self.x[i : i + 16], self.y[i : i + 16]) for i in range(0, 96, 16)]

    unbroken = train(tmp_path / "a", Listed(), {"epochs": 3})
    assert len(unbroken) == 18
    trainer = {"epochs": 3, "checkpoint_every_steps": 4}
    with pytest.raises(InterruptedError):
        train(tmp_path / "b", Listed(), trainer, callbacks=[Crash(11)])
    assert train(tmp_path / "b", Listed(), {"epochs": 3}) == unbroken


def test_max_steps_ends_in_the_middle_of_an_epoch_with_an_evaluation(tmp_path):
    trainer = Trainer(TinyTask(), settings({"epochs": 9, "max_steps": 8}), run_dir=tmp_path)
    trainer.fit()
    assert (trainer.step, trainer.epoch, trainer.position) == (8, 1, 2)
    assert trainer.checkpoints.last().name == "step-000000008"


def test_a_missing_metric_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"trainer\.metric='ap' is not one of loss, draw"):
        train(tmp_path, trainer={"metric": "ap"})
