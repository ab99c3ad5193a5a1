"""A finished fraud run as what its bundle is made of: the scorer, its steps, samples and metric.

Nothing but the run's folder is read, except by the metric, which folds the run's data anew.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from core.convert.source import Arrays, Axis, Sizes, Source
from core.kit import Exportable, Metric, Split
from core.train.checkpoint import load_weights
from kits.fraud.config import FraudTrainConfig, SplitConfig, TreesConfig
from kits.fraud.data.config import DataConfig
from kits.fraud.model import LstmGat
from kits.fraud.model_config import LstmGatConfig
from kits.fraud.neural import NEURAL, build_task
from kits.fraud.scorer import Scorer
from kits.fraud.task import FraudTask
from kits.fraud.trees import read_ensemble

TREES_PART = "lightgbm"
MAX_BATCH = 64
# Validation events that the metric scores: all frauds, and legitimate ones up to this.
METRIC_EVENTS = 20_000
METRIC_BATCH = 256
# What an export reads of model.json beyond what scoring needs.
FACTS = ("num_features", "num_categorical", "neighbour_role", "threshold", "stack")
INTENDED_USE = (
    "Ranks payments by their risk of fraud for people who check them. It was trained on the data "
    "that its provenance names; on other payments it has to be trained and judged anew."
)


def open_run(run: Path) -> Exportable:
    """Read a run's folder.

    Raises:
        ValueError: the run is not finished, or an earlier version wrote it.
    """
    facts, samples = read_facts(run), read_samples(run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    scorer = build_scorer(run, facts, config["model"], tuple(samples))
    levels = facts["stack"]
    return Exportable(
        source=Source(
            name="fraud",
            origin="fraud run: LSTM and graph attention, trees and their blend",
            module=scorer,
            example={name: torch.from_numpy(value[:1]) for name, value in samples.items()},
            output_names=("logit",),
            axes={name: {0: Axis("batch", 1, MAX_BATCH)} for name in samples},
            draw=lambda sizes, rng: mix(samples, sizes, rng),
        ),
        pre=[],
        post=[
            {
                "op": "interpolate",
                "input": "logit",
                "output": "probability",
                "x": levels["level"],
                "y": levels["level_probability"],
            },
            {"op": "threshold", "input": "logit", "output": "alert", "at": facts["threshold"]},
        ],
        calibration=samples,
        metric=_metric(config),
        metric_name="validation_ap",
        config_schema={"type": "object", "properties": {}, "additionalProperties": False},
        config_default={},
        provenance={
            "network": str(_checkpoint(run).relative_to(run)),
            "features": list(facts["feature_names"]),
            "neighbour_role": list(facts["neighbour_role"]),
        },
        license="Apache-2.0",
        intended_use=INTENDED_USE,
    )


def build_scorer(
    run: Path, facts: dict[str, Any], model: dict[str, Any], input_names: tuple[str, ...]
) -> Scorer:
    """The run's last network, trees and blend, in evaluation mode."""
    role = torch.tensor(facts["neighbour_role"])
    num_features, num_categorical = facts["num_features"], facts["num_categorical"]
    network = LstmGat(LstmGatConfig(**model), num_features, num_categorical, role)
    load_weights(_checkpoint(run), network)
    trees = read_ensemble(run / "model", num_features + num_categorical)
    weight, bias = facts["stack"]["weight"], facts["stack"]["bias"]
    weights = (weight[NEURAL], weight[TREES_PART])
    return Scorer(network, trees, weights, bias, input_names).eval()


def read_facts(run: Path) -> dict[str, Any]:
    """What model.json says.

    Raises:
        ValueError: there is none, or it lacks what an export needs.
    """
    path = run / "model" / "model.json"
    if not path.is_file():
        raise ValueError(f"run={run} has no model/model.json; name a finished run's folder")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if missing := [name for name in FACTS if name not in facts]:
        raise ValueError(f"run={run} does not say {', '.join(missing)}; train again")
    return facts


def read_samples(run: Path) -> Arrays:
    """Real inputs of the scorer that training left, without those that hold nothing.

    Raises:
        ValueError: there are none.
    """
    path = run / "model" / "samples.npz"
    if not path.is_file():
        raise ValueError(f"run={run} has no model/samples.npz; train again")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in sorted(archive.files) if archive[name].size}


def mix(samples: Arrays, sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Inputs between two samples each: like real events, but nobody's.

    Numbers lie between those of the two, rounded; what is missing in one of them is missing. Flags
    and codes are those of the first.
    """
    number = len(next(iter(samples.values())))
    first, second = rng.integers(number, size=(2, sizes["batch"]))
    share = rng.uniform(0.2, 0.8, sizes["batch"])
    return {name: _between(array[first], array[second], share) for name, array in samples.items()}


def _between(one: np.ndarray, two: np.ndarray, share: np.ndarray) -> np.ndarray:
    if not np.issubdtype(one.dtype, np.floating):
        return one
    weight = share.reshape(-1, *[1] * (one.ndim - 1))
    mixed = one * (1.0 - weight) + two * weight
    # Three digits.
    scale = 10.0 ** (2 - np.floor(np.log10(np.where(mixed == 0, 1.0, np.abs(mixed)))))
    return (np.round(mixed * scale) / scale).astype(one.dtype)


def _checkpoint(run: Path) -> Path:
    """The network of the last refresh."""
    days = sorted((run / "neural" / NEURAL).glob("*/checkpoints"))
    if not days:
        raise ValueError(f"run={run} has no neural/{NEURAL}; name a finished run's folder")
    best = days[-1] / "best"
    found = best.resolve() if best.exists() else max(days[-1].glob("step-*"), default=None)
    if found is None:
        raise ValueError(f"{days[-1]} holds no checkpoint; train again")
    return days[-1] / found.name


def train_config(config: dict[str, Any]) -> FraudTrainConfig:
    """The part of a run's config.yaml that decides which events it scored."""
    from kits.fraud.kit import KIT

    cls = KIT.groups["data"][config["data"]["name"]]
    data: DataConfig = cls(**{f.name: config["data"][f.name] for f in fields(cls) if f.init})
    cfg = FraudTrainConfig(
        data=data,
        model=LstmGatConfig(**config["model"]),
        split=SplitConfig(**config["split"]),
        trees=TreesConfig(**config["trees"]),
    )
    cfg.trainer.smoke, cfg.trainer.seed = config["trainer"]["smoke"], config["trainer"]["seed"]
    return cfg


def _metric(config: dict[str, Any]) -> Metric:
    """Average precision on the last period's validation rows, folded anew at the first call.

    Compression chooses by it which layers stay in float, so no test row may be in it. The last
    models have trained on these rows: it tells what 8 bits change, not what the model is worth.
    """
    period: list[Any] = []

    def metric(predict: Any) -> dict[str, float]:
        from sklearn.metrics import average_precision_score

        if not period:
            period.extend(last_period(train_config(config), METRIC_EVENTS, "validation"))
        task, rows = period
        parts = [rows[k : k + METRIC_BATCH] for k in range(0, len(rows), METRIC_BATCH)]
        logits = [predict(scorer_inputs(task, part))["logit"] for part in parts]
        label = task.arrays.label[rows]
        return {"validation_ap": float(average_precision_score(label, np.concatenate(logits)))}

    return metric


def last_period(
    cfg: FraudTrainConfig, max_events: int, split: Split = "test"
) -> tuple[FraudTask, np.ndarray]:
    """The run's events as a task, and the rows of its last test period or its validation.

    All frauds stay; of more than `max_events`, legitimate ones are left out, spread evenly.
    """
    task = build_task(cfg)
    rows = task.rows[split]
    label = task.arrays.label[rows]
    legitimate = np.flatnonzero(label == 0)
    wanted = max(1, min(len(legitimate), max_events - int(label.sum())))
    spread = legitimate[np.linspace(0, len(legitimate) - 1, wanted).astype(np.int64)]
    return task, rows[np.sort(np.concatenate([np.flatnonzero(label == 1), spread]))]


def scorer_inputs(task: FraudTask, rows: np.ndarray) -> Arrays:
    """The scorer's inputs of some events, without those that hold nothing."""
    inputs = {name: value.numpy() for name, value in task.raw_inputs(rows).items()}
    return {name: inputs[name] for name in sorted(inputs) if inputs[name].size}
