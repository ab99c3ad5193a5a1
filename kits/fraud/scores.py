"""What a run keeps of its models' scores: enough to recompute every number of its report.

`scores.npz` in the run folder is a plain numpy archive (no pickled objects): one JSON text for the
names, one array per column and period, one per model, period and split for the scores.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

SCORES_FILE = "scores.npz"
_FORMAT = 1
_OWN = ("score", "probability")  # what each model brings; all else is shared by the models


@dataclass(frozen=True)
class Scored:
    """One evaluated period of one model, n events; those of unknown label are already left out."""

    score: np.ndarray  # (n,) float, the ranking; larger is more suspicious
    probability: np.ndarray | None  # (n,) calibrated, or None: no calibration is reported
    label: np.ndarray  # (n,) 0 or 1
    day: np.ndarray  # (n,) int
    account: np.ndarray  # (n,) tokens
    amount: np.ndarray  # (n,) float >= 0
    pattern: np.ndarray  # (n,) int8 true pattern, 0 none; for reporting only
    detectable: np.ndarray  # (n,) bool: the fraud left a trace that was visible at its time

    def __post_init__(self) -> None:
        for field in fields(self):
            column = getattr(self, field.name)
            if column is not None and np.shape(column) != (len(self.score),):
                raise ValueError(
                    f"{field.name} has shape {np.shape(column)}, score has {len(self.score)} rows; "
                    "give one value per event"
                )
        if not np.isfinite(self.score).all():
            raise ValueError("score is not finite everywhere; look for NaN in the model's input")
        if not np.isin(self.label, (0, 1)).all():
            raise ValueError("label is not 0 or 1 everywhere; leave out events of unknown label")
        probability = self.probability
        if probability is not None and not ((probability >= 0) & (probability <= 1)).all():
            raise ValueError("probability is not in [0, 1] everywhere; calibrate the score first")

    def with_scores(self, score: np.ndarray, probability: np.ndarray | None = None) -> "Scored":
        """The same events under another model."""
        return replace(self, score=score, probability=probability)


@dataclass(frozen=True)
class Period:
    """One test week: what each model says of it, and of the validation data before it."""

    name: str  # the first test day, as 2018-07-04
    test: Mapping[str, Scored]  # model -> scores; all models score the same rows
    validation: Mapping[str, Scored]  # model -> scores, for its threshold


@dataclass(frozen=True)
class Model:
    """A model's place in the tables."""

    name: str
    role: Literal["primary", "baseline", "control", "window"]
    # control: our model with its graph broken or removed, or another ablation of ours
    # window: a model on the book's own short training window
    description: str = ""  # one line for the report
    against: str = ""  # of a control: the model whose part it lacks; the primary if empty


@dataclass(frozen=True)
class Scores:
    """Everything scored in a run."""

    periods: Sequence[Period]
    models: Sequence[Model]  # exactly one is primary
    pattern_names: Sequence[str]  # index = value of `pattern`; index 0 is none
    trees: str | None = None  # the model that the primary's neural part is measured against
    smoke: bool = False

    def __post_init__(self) -> None:
        if not self.periods:
            raise ValueError("periods is empty; score at least one test period")
        if [model.role for model in self.models].count("primary") != 1:
            raise ValueError("models has not exactly one primary; mark the kit's own model")
        names = {model.name for model in self.models}
        if len(names) != len(self.models):
            raise ValueError("models holds a name twice; give each model its own")
        for name in (*names, *self.pattern_names):
            if not name or "." in name:
                raise ValueError(f"name={name!r} is empty or has a dot; dots part metrics' keys")
        for model in self.models:
            if model.against and model.against not in names:
                raise ValueError(f"against={model.against!r} is not one of {sorted(names)}")
        for period in self.periods:
            used = set(period.test)
            if used != set(period.validation) or not used <= names:
                raise ValueError(
                    f"period {period.name!r} has test scores of {sorted(used)}, validation of "
                    f"{sorted(period.validation)}, models are {sorted(names)}; score both splits"
                )
            if self.primary not in used:
                raise ValueError(f"period {period.name!r} has no scores of {self.primary!r}")
        baselines = sorted(model.name for model in self.models if model.role == "baseline")
        if self.trees is not None and self.trees not in baselines:
            raise ValueError(f"trees={self.trees!r} is not one of the baselines {baselines}")

    @property
    def primary(self) -> str:
        """Name of the kit's own model."""
        return next(model.name for model in self.models if model.role == "primary")

    def weeks(self, model: str) -> tuple[dict[str, Scored], dict[str, Scored]]:
        """(test, validation) of a model by period name, for the periods that it scored."""
        ours = [period for period in self.periods if model in period.test]
        return (
            {period.name: period.test[model] for period in ours},
            {period.name: period.validation[model] for period in ours},
        )


def save_scores(path: Path, scores: Scores) -> None:
    """Write `scores.npz`; `load_scores` gives back the same bits.

    Raises:
        ValueError: two models of one period were scored on different rows.
    """
    order = [model.name for model in scores.models]
    meta = {
        "format": _FORMAT,
        "periods": [period.name for period in scores.periods],
        "models": [asdict(model) for model in scores.models],
        "pattern_names": list(scores.pattern_names),
        "trees": scores.trees,
        "smoke": scores.smoke,
    }
    arrays = {"meta": np.array(json.dumps(meta))}
    for index, period in enumerate(scores.periods):
        for split, scored_by in (("test", period.test), ("validation", period.validation)):
            shared: Scored | None = None
            for model, scored in scored_by.items():
                own = f"{index}.{split}.{order.index(model)}"
                arrays[f"{own}.score"] = scored.score
                if scored.probability is not None:
                    arrays[f"{own}.probability"] = scored.probability
                if shared is None:
                    shared = scored
                    for column in _shared_columns():
                        arrays[f"{index}.{split}.{column}"] = getattr(scored, column)
                elif not all(
                    np.array_equal(getattr(shared, column), getattr(scored, column))
                    for column in _shared_columns()
                ):
                    raise ValueError(
                        f"{split} of period {period.name!r}: {model!r} was scored on other rows "
                        "than the models before it; score the same events"
                    )
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    partial.replace(path)


def load_scores(path: Path) -> Scores:
    """Read `scores.npz`.

    Raises:
        ValueError: the file is of another format.
        FileNotFoundError: there is none.
    """
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    if meta.get("format") != _FORMAT:
        raise ValueError(
            f"{path.name} has format {meta.get('format')}, this release reads {_FORMAT}; "
            "train again, or evaluate with the release that wrote it"
        )
    models = [Model(**entry) for entry in meta["models"]]

    def split_of(index: int, split: str) -> dict[str, Scored]:
        shared = {name: arrays.get(f"{index}.{split}.{name}") for name in _shared_columns()}
        return {
            model.name: Scored(
                score=arrays[f"{index}.{split}.{number}.score"],
                probability=arrays.get(f"{index}.{split}.{number}.probability"),
                **shared,
            )
            for number, model in enumerate(models)
            if f"{index}.{split}.{number}.score" in arrays
        }

    periods = [
        Period(name, split_of(index, "test"), split_of(index, "validation"))
        for index, name in enumerate(meta["periods"])
    ]
    return Scores(periods, models, meta["pattern_names"], meta["trees"], meta["smoke"])


def _shared_columns() -> list[str]:
    return [field.name for field in fields(Scored) if field.name not in _OWN]
