import io

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.train.callbacks import Callback, ProgressBar
from core.train.trainer import Trainer
from tests.core.train.tiny import TinyTask, settings, train


def run_with_bar(tmp_path, *, terminal, line_every_s=30.0):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120)
    bar = ProgressBar(console, line_every_s)
    train(tmp_path, TinyTask(), {"epochs": 3, "log_every_steps": 4}, callbacks=[bar])
    return stream.getvalue()


def test_the_bar_shows_speed_and_the_last_step(tmp_path):
    text = run_with_bar(tmp_path, terminal=True)
    assert "100%" in text
    assert "step 16, loss" in text
    assert "samples/s" in text


def test_without_a_terminal_there_are_lines_now_and_then(tmp_path):
    text = run_with_bar(tmp_path / "often", terminal=False, line_every_s=0.0)
    assert "step 1, loss" in text
    assert "samples/s, 0 s left" in text
    assert "\x1b" not in text
    quiet = run_with_bar(tmp_path / "seldom", terminal=False)
    # The evaluations only.
    assert [line.split(":")[0] for line in quiet.splitlines()] == ["step 6", "step 12", "step 18"]


def test_tensorboard_has_the_scalars_of_training_and_evaluation(tmp_path):
    trainer = {"epochs": 2, "log_every_steps": 3, "tensorboard": True, "precision": "fp16"}
    train(tmp_path, TinyTask(), trainer)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = set(events.Tags()["scalars"])
    names = {"loss", "bias", "lr", "grad_norm", "samples_per_s", "loss_scale"}
    assert scalars == {f"train/{name}" for name in names} | {"validation/loss", "validation/draw"}
    assert [event.step for event in events.Scalars("train/loss")] == [3, 6, 9, 12]
    assert [event.step for event in events.Scalars("validation/loss")] == [6, 12]


def test_logged_losses_are_means_over_the_steps_between(tmp_path):
    logged = []

    class Watch(Callback):
        def on_log(self, trainer, logs):
            logged.append(logs["loss"])

    curve = train(tmp_path, TinyTask(), {"log_every_steps": 3, "epochs": 1}, callbacks=[Watch()])
    assert logged == pytest.approx([sum(curve[:3]) / 3, sum(curve[3:]) / 3])


class Worsening(TinyTask):
    """The metric gets better three times, then never again."""

    def __init__(self):
        super().__init__()
        self.values = [3.0, 2.0, 1.0] + [5.0] * 50

    def evaluate(self, split):
        return {"loss": self.values.pop(0)}


def test_early_stop_waits_for_its_patience_and_keeps_the_best(tmp_path):
    trainer = Trainer(Worsening(), settings({"epochs": 30, "patience": 4}), run_dir=tmp_path)
    best = trainer.fit()
    assert trainer.step == (3 + 4) * 6
    assert best.name == f"step-{3 * 6:09d}"
    assert trainer.stop_reason == "no better loss in 4 evaluations"
    # A stopped run is over, also when started again.
    again = Trainer(Worsening(), settings({"epochs": 30, "patience": 4}), run_dir=tmp_path)
    assert again.fit() == best
    assert again.step == trainer.step


def test_early_stop_counts_on_after_a_resume(tmp_path):
    class Crash(Callback):
        def on_evaluate(self, trainer, metrics):
            if trainer.step == 6 * 6:
                raise InterruptedError

    task = Worsening()
    with pytest.raises(InterruptedError):
        train(tmp_path, task, {"epochs": 30, "patience": 4}, callbacks=[Crash()])
    assert len(train(tmp_path, task, {"epochs": 30, "patience": 4})) == (3 + 4) * 6


def test_a_higher_metric_can_be_the_better_one(tmp_path):
    task = Worsening()
    task.values = [1.0, float("nan"), 3.0, 2.0]
    trainer = {"epochs": 4, "metric_mode": "max"}
    best = Trainer(task, settings(trainer), run_dir=tmp_path).fit()
    assert best.name == f"step-{3 * 6:09d}"
