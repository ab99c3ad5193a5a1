"""The brief's model as a task for the trainer.

Dimensions: W windows, N events of a window.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from core.kit import Split, Step
from core.train.batches import Batches
from kits.fraud.arrays import FraudArrays, share_an_entity
from kits.fraud.brief import BriefScorer
from kits.fraud.model_config import BriefConfig
from kits.fraud.task import (
    Batch,
    EventTable,
    Rows,
    fit_inputs,
    known_rows,
    predict_logits,
    score_metrics,
)


class BriefTask:
    """The brief's model on windows of consecutive events, which overlap by half.

    An event is scored by the window that holds it in its second half, so that at least half a
    window of past events precedes it.

    Args:
        arrays: all events.
        rows: event numbers of each split; those with an unknown label neither train nor count.
        cfg: the size of a window and how many train.
        seed: of the weights and the order.
        start: a task of the same arrays whose model is trained on; its model is changed.
        events: the table of another task of the same arrays, to share its memory and statistics.
    """

    def __init__(
        self,
        arrays: FraudArrays,
        rows: Rows,
        cfg: BriefConfig,
        *,
        seed: int = 0,
        start: BriefTask | None = None,
        events: EventTable | None = None,
    ) -> None:
        self.arrays, self.cfg, self.seed = arrays, cfg, seed
        self.half = cfg.window // 2
        self.rows = known_rows(arrays, rows)
        if start is None:
            torch.manual_seed(seed)
            shape = arrays.features.shape[1], arrays.codes.shape[1]
            self.model = BriefScorer(*shape, cfg.num_codes)
            self.events = fit_inputs(self.model, arrays, self.rows["train"], events)
        else:
            self.model, self.events = start.model, start.events
        self.is_counted = {split: self._mark(self.rows[split]) for split in self.rows}
        windows = np.unique(self.rows["train"] // self.half)
        if cfg.num_windows is not None and cfg.num_windows < len(windows):
            even = np.linspace(0, len(windows) - 1, cfg.num_windows).round().astype(np.int64)
            windows = windows[even]
        self.train_windows = windows

    def batches(self, split: Split) -> Batches[Batch]:
        """Batches of windows; the training split is shuffled."""
        is_train = split == "train"
        windows = self.train_windows if is_train else np.unique(self.rows[split] // self.half)
        counted = self.is_counted[split]
        return Batches(
            len(windows), self.cfg.batch_size,
            lambda index: self.collate(windows[index], counted),
            seed=self.seed, shuffle=is_train,
        )  # fmt: skip

    def step(self, batch: Batch) -> Step:
        """Mean cross-entropy of a batch's events of the split."""
        losses = functional.binary_cross_entropy_with_logits(
            self.model(batch), batch["label"], reduction="none"
        )
        weight = batch["weight"]
        return Step((losses * weight).sum() / weight.sum().clamp(min=1.0))

    def evaluate(self, split: Split) -> dict[str, float]:
        """Average precision, area under the ROC curve and mean cross-entropy."""
        return score_metrics(self.predict(self.rows[split]), self.arrays.label[self.rows[split]])

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) event numbers -> (rows,) float64 logits."""
        windows, place = np.unique(rows // self.half, return_inverse=True)
        parts = [windows[k : k + 1] for k in range(len(windows))]
        logits = predict_logits(self.model, (self.collate(part, None) for part in parts))
        tails = logits.reshape(len(windows), self.cfg.window)[:, self.half :]
        return tails[place, rows % self.half]

    def example(self) -> Batch:
        """Raw inputs of one window."""
        window = self.train_windows[-1:]
        batch = self.collate(window, None)
        events = np.clip(self._events(window), 0, len(self.arrays) - 1)
        x = torch.from_numpy(self.arrays.features[events])
        return {"x": x, "c": batch["c"], "adjacency": batch["adjacency"]}

    def collate(self, windows: np.ndarray, is_counted: np.ndarray | None) -> Batch:
        """Inputs of some windows, numbered by their second halves, and labels where counted."""
        events = self._events(windows)
        inside = np.clip(events, 0, len(self.arrays) - 1)
        is_real = events == inside
        edges = np.stack([share_an_entity(self.arrays, window) for window in inside])
        edges &= is_real[:, :, None] & is_real[:, None, :]
        weight = is_real if is_counted is None else is_real & is_counted[inside]
        z = self.events.features(inside) * torch.from_numpy(is_real).unsqueeze(-1)
        return {
            "z": z,
            "c": self.events.codes(inside),
            "adjacency": torch.from_numpy(edges),
            "label": torch.from_numpy(np.maximum(self.arrays.label[inside], 0).astype(np.float32)),
            "weight": torch.from_numpy(weight.astype(np.float32)),
        }

    def _events(self, windows: np.ndarray) -> np.ndarray:
        """(W, N) event numbers, beyond the data at both ends."""
        return (windows[:, None] - 1) * self.half + np.arange(self.cfg.window)

    def _mark(self, rows: np.ndarray) -> np.ndarray:
        is_row = np.zeros(len(self.arrays), bool)
        is_row[rows] = True
        return is_row
