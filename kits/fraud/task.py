"""The fraud kit's default network as a task for the trainer, and what its tasks share.

Dimensions: n events, B batch, K history, N neighbours, F features, C categorical columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from core.kit import Split, Step
from core.train.batches import Batches
from kits.fraud.arrays import FraudArrays, shuffle_neighbours
from kits.fraud.brief import BriefScorer
from kits.fraud.encode import EventEncoder
from kits.fraud.model import LstmGat
from kits.fraud.model_config import LstmGatConfig

Batch = dict[str, Tensor]
Rows = Mapping[Split, np.ndarray]

# Rows from which the inputs' statistics are taken, and numbers in them that torch can sort.
MAX_FIT_ROWS = 50_000
MAX_FIT_NUMBERS = 15_000_000
CHUNK = 65_536
# Above this the standardised features are computed batch by batch instead of once.
MAX_TABLE_BYTES = 4 << 30
PREDICT_BATCH = 512


class ScoreTask(Protocol):
    """What scores transactions: a task that also gives the logits of any events."""

    model: nn.Module

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) event numbers -> (rows,) float64 logits."""
        ...


class EventTable:
    """Standardised features of all events, in half precision: computed once, gathered often."""

    def __init__(self, arrays: FraudArrays, encoder: EventEncoder) -> None:
        self._features, self._codes, self.encoder = arrays.features, arrays.codes, encoder
        self._table: Tensor | None = None
        if 2 * arrays.features.size <= MAX_TABLE_BYTES:
            self._table = torch.empty(arrays.features.shape, dtype=torch.float16)
            for start in range(0, len(arrays), CHUNK):
                part = slice(start, start + CHUNK)
                self._table[part] = self._standardise(arrays.features[part])

    def features(self, events: np.ndarray) -> Tensor:
        """(...) event numbers, negative for none -> (..., F) float32, anything for none."""
        index = np.maximum(events, 0)
        if self._table is None:
            return self._standardise(self._features[index.ravel()]).view(*index.shape, -1)
        flat = self._table.index_select(0, torch.from_numpy(index.astype(np.int64)).flatten())
        return flat.float().view(*index.shape, -1)

    def codes(self, events: np.ndarray) -> Tensor:
        """(...) event numbers -> (..., C) int64."""
        return torch.from_numpy(self._codes[np.maximum(events, 0)].astype(np.int64))

    def _standardise(self, features: np.ndarray) -> Tensor:
        raw = torch.from_numpy(np.array(features, np.float32))
        with torch.no_grad():
            return self.encoder.standardise(raw.to(self.encoder.mean.device)).cpu()


class FraudTask:
    """LstmGat on single events: all training frauds and a sample of the legitimate ones.

    Args:
        arrays: all events.
        rows: event numbers of each split; those with an unknown label neither train nor count.
        cfg: the model and how it is fed.
        seed: of the weights, the sample and the order.
        start: a task of the same arrays whose model and standardisation are trained on, to
            follow a growing history at a fraction of the cost; its model is changed.
        events: the table of another task of the same arrays, to share its memory and statistics.
    """

    def __init__(
        self,
        arrays: FraudArrays,
        rows: Rows,
        cfg: LstmGatConfig,
        *,
        seed: int = 0,
        start: FraudTask | None = None,
        events: EventTable | None = None,
    ) -> None:
        self.cfg, self.seed = cfg, seed
        self.rows = known_rows(arrays, rows)
        train = self.rows["train"]
        if start is None:
            self.arrays = shuffle_neighbours(arrays, seed) if cfg.graph == "shuffled" else arrays
            torch.manual_seed(seed)
            role = torch.from_numpy(arrays.neighbour_role.astype(np.int64))
            shape = arrays.features.shape[1], arrays.codes.shape[1]
            self.model = LstmGat(cfg, *shape, role)
            self.events = fit_inputs(self.model, arrays, train, events)
        else:
            self.arrays, self.model, self.events = start.arrays, start.model, start.events
        self.train_rows, share = _sample(train, arrays.label, cfg.legitimate_per_fraud, seed)
        # The sample's odds are higher than the data's by this; the model is to give the data's.
        self.shift = -float(np.log(share))

    def batches(self, split: Split) -> Batches[Batch]:
        """Batches of a split; the training split is shuffled."""
        rows = self.train_rows if split == "train" else self.rows[split]
        size, training = self.cfg.batch_size, split == "train"
        return Batches(
            len(rows), size, lambda index: self.collate(rows[index]), seed=self.seed,
            shuffle=training, drop_last=training and len(rows) >= size,
        )  # fmt: skip

    def step(self, batch: Batch) -> Step:
        """Cross-entropy, or focal loss, of one batch."""
        logit = self.model(batch)
        if self.model.training:
            logit = logit + self.shift
        return Step(_loss(logit, batch["label"], self.cfg.focal_gamma))

    def evaluate(self, split: Split) -> dict[str, float]:
        """Average precision, area under the ROC curve and mean cross-entropy."""
        return score_metrics(self.predict(self.rows[split]), self.arrays.label[self.rows[split]])

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) event numbers -> (rows,) float64 logits."""
        parts = [rows[k : k + PREDICT_BATCH] for k in range(0, len(rows), PREDICT_BATCH)]
        return predict_logits(self.model, (self.collate(part) for part in parts))

    def example(self) -> Batch:
        """Raw inputs of one event, as a service would give them."""
        return self.raw_inputs(self.train_rows[-1:])

    def raw_inputs(self, rows: np.ndarray) -> Batch:
        """The model's inputs of some events, features as the fold gives them."""
        batch = self.collate(rows)
        inputs = {name: v for name, v in batch.items() if name != "label" and name[:2] != "z_"}
        history = np.maximum(self.arrays.history[rows], 0)
        inputs["x_history"] = torch.from_numpy(self.arrays.features[history])
        if self.cfg.graph != "off":
            neighbours = np.maximum(self.arrays.neighbours[rows], 0)
            inputs["x_neighbours"] = torch.from_numpy(self.arrays.features[neighbours])
        return inputs

    def collate(self, rows: np.ndarray) -> Batch:
        """The model's inputs and the labels of some events."""
        arrays = self.arrays
        history = arrays.history[rows]
        batch = {
            "z_history": self.events.features(history),
            "c_history": self.events.codes(history),
            "history_gap": self._gap(rows, history),
            "history_mask": torch.from_numpy(history >= 0),
            "history_status": torch.from_numpy(arrays.history_status[rows].astype(np.int64)),
            "label": torch.from_numpy(arrays.label[rows].astype(np.float32)),
        }
        if self.cfg.graph != "off":
            neighbours = arrays.neighbours[rows]
            status = arrays.neighbour_status[rows].astype(np.int64)
            batch |= {
                "z_neighbours": self.events.features(neighbours),
                "c_neighbours": self.events.codes(neighbours),
                "neighbour_gap": self._gap(rows, neighbours),
                "neighbour_mask": torch.from_numpy(neighbours >= 0),
                "neighbour_status": torch.from_numpy(status),
            }
        return batch

    def _gap(self, rows: np.ndarray, others: np.ndarray) -> Tensor:
        time_s = self.arrays.time_s
        gap = time_s[rows][:, None] - time_s[np.maximum(others, 0)]
        return torch.from_numpy(np.maximum(gap, 0).astype(np.float32))


def known_rows(arrays: FraudArrays, rows: Rows) -> dict[Split, np.ndarray]:
    """Rows with a known label, of each split.

    Raises:
        ValueError: the training rows do not hold both frauds and legitimate events.
    """
    known = {split: part[arrays.label[part] >= 0] for split, part in rows.items()}
    if set(np.unique(arrays.label[known["train"]])) != {0, 1}:
        raise ValueError(
            f"rows['train'] holds {len(known['train'])} known labels, not both kinds; "
            "train on a longer history"
        )
    return known


def fit_inputs(
    model: LstmGat | BriefScorer,
    arrays: FraudArrays,
    train: np.ndarray,
    events: EventTable | None = None,
) -> EventTable:
    """Fit a model's standardisation and first output to training rows.

    Returns:
        the standardised events; `events` itself if given, whose statistics the model then takes.
    """
    num_rows = min(MAX_FIT_ROWS, MAX_FIT_NUMBERS // arrays.features.shape[1], len(train))
    chosen = np.sort(np.random.default_rng(0).choice(train, num_rows, replace=False))
    features = torch.from_numpy(np.array(arrays.features[chosen], np.float32))
    encoder = None if events is None else events.encoder
    model.fit_inputs(features, float(arrays.label[train].mean()), encoder)
    return EventTable(arrays, model.encoder) if events is None else events


def _sample(
    train: np.ndarray, label: np.ndarray, legitimate_per_fraud: float | None, seed: int
) -> tuple[np.ndarray, float]:
    """All frauds and some legitimate rows, and the share of the legitimate rows that is in."""
    fraud, legitimate = train[label[train] == 1], train[label[train] == 0]
    if legitimate_per_fraud is None:
        return train, 1.0
    num = min(len(legitimate), max(1, int(legitimate_per_fraud * len(fraud))))
    chosen = np.random.default_rng(seed).choice(legitimate, num, replace=False)
    return np.sort(np.concatenate([fraud, chosen])), num / len(legitimate)


def _loss(logit: Tensor, label: Tensor, focal_gamma: float) -> Tensor:
    losses = functional.binary_cross_entropy_with_logits(logit, label, reduction="none")
    if focal_gamma:
        # 1 - probability of the truth, from the loss itself.
        losses = losses * (1 - torch.exp(-losses)) ** focal_gamma
    return losses.mean()


@torch.no_grad()
def predict_logits(model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
    """All logits of some batches in evaluation mode: (...) float64, flat."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = [
        model({name: value.to(device) for name, value in batch.items()}).flatten().cpu()
        for batch in batches
    ]
    model.train(was_training)
    return torch.cat(parts).double().numpy() if parts else np.empty(0)


def score_metrics(logit: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Average precision, area under the ROC curve and mean cross-entropy of (n,) logits."""
    loss = np.mean(np.logaddexp(0.0, logit) - logit * label)
    return {
        "ap": float(average_precision_score(label, logit)),
        "auc": float(roc_auc_score(label, logit)),
        "loss": float(loss),
    }
