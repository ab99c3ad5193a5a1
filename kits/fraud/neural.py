"""The networks of one run: trained at the first refresh, then trained on as labels arrive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.kit import Split
from core.train.trainer import Trainer
from kits.fraud.arrays import FraudArrays
from kits.fraud.brief_task import BriefTask
from kits.fraud.config import FraudTrainConfig
from kits.fraud.data.events import Events
from kits.fraud.features import Inputs
from kits.fraud.model_config import BriefConfig
from kits.fraud.split import Refresh, day_name
from kits.fraud.task import FraudTask

NEURAL, LSTM, BRIEF, SHUFFLED = "lstm_gat", "lstm", "brief", "lstm_gat_shuffled"
# A trained model follows new labels with one more pass at a lower learning rate.
REFRESH_EPOCHS = 1
REFRESH_LR_SHARE = 0.3
SMOKE_WINDOWS = 40


class NeuralModels:
    """All networks of a run.

    Args:
        cfg: which of them, and how they are trained.
        events: the run's events.
        inputs: what the fold made of them.
        folder: checkpoints and TensorBoard files go to `<folder>/<model>/<day>`.
    """

    def __init__(self, cfg: FraudTrainConfig, events: Events, inputs: Inputs, folder: Path) -> None:
        self._cfg, self._folder = cfg, folder
        self._arrays = arrays_of(events, inputs)
        self._tasks: dict[str, FraudTask | BriefTask] = {}
        self.names = [
            NEURAL,
            *(name for name in (LSTM, BRIEF) if name in cfg.baselines),
            *([SHUFFLED] if "shuffled" in cfg.controls else []),
        ]

    def fit_and_score(self, name: str, refresh: Refresh, seed: int) -> np.ndarray:
        """Train a network on the labels known by now: logits of the rows that follow, (k,)."""
        rows: dict[Split, np.ndarray] = {"train": refresh.train, "test": refresh.score}
        earlier = self._tasks.get(name)
        shared = next((task.events for task in self._tasks.values()), None)
        task = self._task(name, rows, seed, {"start": earlier, "events": shared})
        self._tasks[name] = task
        trainer, optim = self._cfg.trainer, self._cfg.optim
        if earlier is not None:
            trainer = replace(trainer, epochs=REFRESH_EPOCHS)
            optim = replace(optim, lr=optim.lr * REFRESH_LR_SHARE)
        # A short run must not end before its warm-up does.
        steps = min(trainer.max_steps or 2**31, trainer.epochs * len(task.batches("train")))
        optim = replace(optim, warmup_steps=min(optim.warmup_steps, steps // 4))
        cfg = replace(self._cfg, trainer=trainer, optim=optim)
        folder = self._folder / name / day_name(refresh.time_s)
        folder.mkdir(parents=True, exist_ok=True)
        Trainer(task, cfg, run_dir=folder).fit()
        return task.predict(refresh.score)

    def raw_inputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the default network, once trained, reads of some events, as a service gives it."""
        task = self._tasks[NEURAL]
        assert isinstance(task, FraudTask)
        return {name: value.numpy() for name, value in task.raw_inputs(rows).items()}

    def _task(
        self, name: str, rows: dict[Split, np.ndarray], seed: int, known: dict[str, Any]
    ) -> Any:
        if name == BRIEF:
            windows = SMOKE_WINDOWS if self._cfg.trainer.smoke else BriefConfig.num_windows
            brief = BriefConfig(num_windows=windows)
            return BriefTask(self._arrays, rows, brief, seed=seed, **known)
        graph = {LSTM: "off", SHUFFLED: "shuffled"}.get(name, self._cfg.model.graph)
        model = replace(self._cfg.model, graph=graph)
        return FraudTask(self._arrays, rows, model, seed=seed, **known)


def arrays_of(events: Events, inputs: Inputs) -> FraudArrays:
    """The networks' view of a run's events; shares its memory."""
    first = len(inputs.feature_names) - len(inputs.categorical)
    codes = np.nan_to_num(inputs.features[:, first:] + 1, nan=0.0).astype(np.int16)
    return FraudArrays(
        features=inputs.features[:, :first],
        feature_names=inputs.feature_names[:first],
        codes=codes,
        history=inputs.history,
        history_status=inputs.history_status,
        neighbours=inputs.neighbours,
        neighbour_status=inputs.neighbour_status,
        neighbour_role=inputs.neighbour_role,
        time_s=np.asarray(events.time_s),
        label=np.asarray(events.label),
        entities=events.entities,
        entity_kinds=events.entity_kinds,
    )


def build_task(cfg: FraudTrainConfig) -> FraudTask:
    """The default network with the rows of the last test period: trained, validated, tested on."""
    from kits.fraud.data import load_events
    from kits.fraud.features import build_inputs
    from kits.fraud.split import plan

    smoke = cfg.trainer.smoke
    events = load_events(cfg.data, smoke=smoke)
    inputs = build_inputs(events, cfg.data.label_delay_days)
    layout = plan(events, inputs.visible_s, cfg.split, smoke=smoke)
    last = layout.periods[-1]
    rows: dict[Split, np.ndarray] = {
        "train": layout.refreshes[-1].train,
        "validation": last.validation,
        "test": last.test,
    }
    return FraudTask(arrays_of(events, inputs), rows, cfg.model, seed=cfg.trainer.seed)
