"""The fraud kit's training job: fold, train again and again as time goes on, score, report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from core.train.run import Run
from kits.fraud.baselines import TABULAR, Trees, sample_rows
from kits.fraud.config import FraudTrainConfig
from kits.fraud.data import load_events
from kits.fraud.data.events import Events
from kits.fraud.data.progress import progress_bar, say
from kits.fraud.evaluate import evaluate_run
from kits.fraud.features import DAY_S, Inputs, build_inputs
from kits.fraud.leak import leak_checks
from kits.fraud.metrics import choose_threshold
from kits.fraud.neural import NeuralModels
from kits.fraud.report import REPORT_FILE, Facts
from kits.fraud.scores import SCORES_FILE, Model, Period, Scored, Scores, save_scores
from kits.fraud.split import Plan, Refresh, TestPeriod, detectable, plan
from kits.fraud.stack import Stack
from kits.fraud.tables import comparison_table

PRIMARY, TREES, NEURAL = "deepkits", "lightgbm", "lstm_gat"
SHORT_TREES = "lightgbm_short"
# Rounds tried on the first scored validation period, as shares of the most allowed.
ROUND_SHARES = (0.25, 0.5, 0.75, 1.0)
ROUNDS_TOLERANCE = 0.01
# Validation rows kept with a run, and how many of them are frauds.
NUM_SAMPLES, SAMPLE_FRAUDS = 64, 16
# Of the boosting rounds, trees and iterations of a full run.
SMOKE_SHARE = 0.2

# Best of the book's models by AP over its four test weeks, trained on 7 days (chapter 7).
REFERENCES: dict[str, list[dict[str, Any]]] = {
    "handbook": [
        {"name": "book: XGBoost, 7 days", "ap": 0.687, "auc": 0.869, "cp_at_100": 0.303},
        {"name": "book: random forest, 7 days", "ap": 0.678, "auc": 0.870, "cp_at_100": 0.299},
        {"name": "book: LSTM with attention", "ap": 0.667, "auc": 0.874, "cp_at_100": 0.295},
    ]
}
DESCRIPTIONS = {
    PRIMARY: "trees and LSTM + graph attention, stacked and calibrated on earlier scores",
    TREES: "gradient-boosted trees on the stateful features: the kit's own, without the network",
    NEURAL: "the network alone",
    "logistic": "logistic regression on the stateful features",
    "random_forest": "60 trees on the stateful features",
    "xgboost": "gradient boosting on the stateful features",
    "lstm": "the network without its graph",
    "brief": "the brief's FraudDetector over windows of events",
    "lstm_gat_shuffled": "the network with the neighbours of other events",
    SHORT_TREES: "the kit's trees, trained on the last labelled days alone",
}


def run_prequential(cfg: FraudTrainConfig) -> Path:
    """Train and score as time goes on; leave models, metrics and a report.

    Returns:
        the run's folder.

    Raises:
        ValueError: the data cannot be read, or are too short for the split.
    """
    seconds: dict[str, float] = {}
    run = Run.create("fraud", cfg, cfg.trainer.runs_dir)
    smoke = cfg.trainer.smoke
    with _timed(seconds, "data"):
        events = load_events(cfg.data, smoke=smoke)
    run.record_data(events.fingerprint, **_data_facts(events))
    say(f"{events.name}: {len(events):,} events, {int((events.label == 1).sum()):,} known frauds")
    with _timed(seconds, "fold"):
        inputs = build_inputs(events, cfg.data.label_delay_days)
    layout = plan(events, inputs.visible_s, cfg.split, smoke=smoke)
    with _timed(seconds, "leak checks"):
        checks = leak_checks(events, inputs.visible_s)
    job = _Job(cfg, events, inputs, layout, run.path, seconds)
    job.train_and_score()
    scores = job.collect()
    save_scores(run.path / SCORES_FILE, scores)
    Facts(
        title=f"Fraud detection on {events.name}",
        summary=_summary(events, layout, cfg),
        importance=job.importance(),
        leak_checks=checks,
        data=_data_facts(events) | inputs.facts | {"fingerprint": events.fingerprint[:16]},
        seconds={name: round(value, 1) for name, value in seconds.items()},
        references=[] if smoke else REFERENCES.get(events.name, []),
        limits=_limits(events, smoke=smoke),
    ).save(run.path)
    metrics = evaluate_run(run.path)
    references = [] if smoke else REFERENCES.get(events.name, [])
    console = Console()
    console.print(comparison_table(metrics, references, primary=PRIMARY))
    console.print(f"report: {run.path / REPORT_FILE}", soft_wrap=True)
    return run.path


@dataclass
class _Job:
    """All models of one run, trained at each refresh, and what they scored."""

    cfg: FraudTrainConfig
    events: Events
    inputs: Inputs
    layout: Plan
    path: Path
    seconds: dict[str, float]
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # model -> (n,), NaN unscored
    trees: Trees | None = None
    rounds: int | None = None
    stack: Stack | None = None
    neural: NeuralModels | None = None

    def train_and_score(self) -> None:
        """Train every model at every refresh and score the rows that follow it."""
        label = np.asarray(self.events.label)
        refreshes = self.layout.refreshes
        effort = SMOKE_SHARE if self.cfg.trainer.smoke else 1.0
        neural = self.neural = NeuralModels(
            self.cfg, self.events, self.inputs, self.path / "neural"
        )
        names = [TREES, *(b for b in self.cfg.baselines if b in TABULAR), *neural.names]
        if self.cfg.split.short_window_days:
            names.append(SHORT_TREES)
        self.scores = {name: np.full(len(label), np.nan) for name in names}
        with progress_bar("train and score", len(refreshes) * len(names)) as advance:
            for number, refresh in enumerate(refreshes):
                seed = self.cfg.trainer.seed + 1000 * number
                rows, weight = sample_rows(
                    refresh.train, label, self.cfg.trees.legitimate_per_fraud, seed
                )
                x, y = self.inputs.features[rows], label[rows].astype(np.float32)
                score_x = self.inputs.features[refresh.score]
                with self._clock(TREES):
                    self._fit_trees(number, x, y, weight, refresh, score_x)
                advance(1)
                for name in names:
                    if name in TABULAR:
                        with self._clock(name):
                            scorer = TABULAR[name](x, y, weight, seed, effort)
                            self.scores[name][refresh.score] = scorer(score_x)
                        advance(1)
                if SHORT_TREES in names:
                    with self._clock(SHORT_TREES):
                        self._fit_short_trees(refresh, score_x, seed)
                    advance(1)
                for name in neural.names:
                    with self._clock(name):
                        scored = neural.fit_and_score(name, refresh, seed)
                        self.scores[name][refresh.score] = scored
                    advance(1)

    def collect(self) -> Scores:
        """Blend trees and network on validation rows; every model's scores per test period."""
        known = detectable(self.events, self.inputs.visible_s)
        parts = [TREES, *([NEURAL] if NEURAL in self.scores else [])]
        periods = []
        for period in self.layout.periods:
            label = np.asarray(self.events.label)[period.validation]
            stack = self.stack = Stack.fit(
                {name: self.scores[name][period.validation] for name in parts}, label
            )
            test, validation = {}, {}
            for rows, target in ((period.test, test), (period.validation, validation)):
                base = self._scored(rows, known)
                blended = stack.score({name: self.scores[name][rows] for name in parts})
                target[PRIMARY] = base.with_scores(blended, stack.probability(blended))
                for name, score in self.scores.items():
                    target[name] = base.with_scores(score[rows])
            periods.append(Period(period.name, test, validation))
        self._save_models(parts, choose_threshold(periods[-1].validation[PRIMARY]))
        return Scores(
            periods,
            [Model(PRIMARY, "primary", DESCRIPTIONS[PRIMARY]), *map(_model, self.scores)],
            self.events.pattern_names,
            trees=TREES,
            smoke=self.cfg.trainer.smoke,
        )

    def importance(self) -> dict[str, float]:
        """Share of the gain in the last trees, largest first."""
        assert self.trees is not None
        pairs = zip(self.inputs.feature_names, self.trees.importance(), strict=True)
        return dict(sorted(((n, float(g)) for n, g in pairs), key=lambda pair: -pair[1]))

    def _fit_trees(
        self,
        number: int,
        x: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        refresh: Refresh,
        score_x: np.ndarray,
    ) -> None:
        most = self.cfg.trees.max_rounds
        if self.cfg.trainer.smoke:
            most = max(1, round(most * SMOKE_SHARE))
        seed = self.cfg.trainer.seed + number
        trees = self.trees = Trees(self.cfg.trees, self.inputs.categorical, seed)
        trees.fit(x, y, weight, self.rounds or most)
        if self.rounds is None:
            self.rounds = self._choose_rounds(trees, refresh, score_x, most)
        self.scores[TREES][refresh.score] = trees.score(score_x, self.rounds)

    def _choose_rounds(self, trees: Trees, refresh: Refresh, score_x: np.ndarray, most: int) -> int:
        """The fewest rounds that reach the best AP on the first scored rows, but for 1 %.

        These rows come before every test period.
        """
        from sklearn.metrics import average_precision_score

        label = np.asarray(self.events.label)[refresh.score]
        tried = {
            rounds: average_precision_score(label, trees.score(score_x, rounds))
            for rounds in (max(1, round(most * share)) for share in ROUND_SHARES)
        }
        enough = (1 - ROUNDS_TOLERANCE) * max(tried.values())
        best = min(rounds for rounds, ap in tried.items() if ap >= enough)
        found = ", ".join(f"{rounds}: {ap:.3f}" for rounds, ap in tried.items())
        say(f"boosting rounds by AP before the first test period: {found}; {best} taken")
        return best

    def _fit_short_trees(self, refresh: Refresh, score_x: np.ndarray, seed: int) -> None:
        window_s = round(self.cfg.split.short_window_days * DAY_S)
        time_s, label = np.asarray(self.events.time_s), np.asarray(self.events.label)
        delay_s = int(np.max(self.inputs.visible_s[refresh.train] - time_s[refresh.train]))
        rows = refresh.train[time_s[refresh.train] >= refresh.time_s - delay_s - window_s]
        trees = Trees(self.cfg.trees, self.inputs.categorical, seed)
        y = label[rows].astype(np.float32)
        trees.fit(self.inputs.features[rows], y, np.ones(len(rows)), self.rounds or 100)
        self.scores[SHORT_TREES][refresh.score] = trees.score(score_x)

    def _scored(self, rows: np.ndarray, known: np.ndarray) -> Scored:
        events = self.events
        return Scored(
            score=np.zeros(len(rows)),
            probability=None,
            label=np.asarray(events.label)[rows],
            day=(np.asarray(events.time_s)[rows] // DAY_S).astype(np.int64),
            account=np.asarray(events.entities[:, 0])[rows],
            amount=np.asarray(events.amount)[rows],
            pattern=np.asarray(events.pattern)[rows],
            detectable=known[rows],
        )

    def _save_models(self, parts: list[str], threshold: float) -> None:
        """The last trained trees and blend, in formats that hold no code; what an export needs."""
        assert self.trees is not None
        assert self.stack is not None
        folder = self.path / "model"
        folder.mkdir(exist_ok=True)
        for number, booster in enumerate(self.trees.boosters):
            booster.save_model(str(folder / f"trees_{number}.txt"), num_iteration=self.rounds)
        num_categorical = len(self.inputs.categorical)
        facts = {
            "feature_names": self.inputs.feature_names,
            "num_features": len(self.inputs.feature_names) - num_categorical,
            "num_categorical": num_categorical,
            "entity_roles": self.events.entity_roles,
            "entity_kinds": self.events.entity_kinds,
            "neighbour_role": self.inputs.neighbour_role.tolist(),
            "label_delay_days": self.cfg.data.label_delay_days,
            "parts": parts,
            "stack": self.stack.to_json(),
            "threshold": threshold,
        }
        (folder / "model.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        self._save_samples(folder / "samples.npz")

    def _save_samples(self, path: Path) -> None:
        """A few real inputs, to calibrate a quantised model with and to draw others like them."""
        assert self.neural is not None
        rows, label = self.layout.periods[-1].validation, np.asarray(self.events.label)
        rng = np.random.default_rng(self.cfg.trainer.seed)
        frauds = rows[label[rows] == 1]
        chosen = [
            rng.choice(part, min(number, len(part)), replace=False)
            for part, number in ((frauds, SAMPLE_FRAUDS), (rows, NUM_SAMPLES - SAMPLE_FRAUDS))
        ]
        samples = self.neural.raw_inputs(np.unique(np.concatenate(chosen)))
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **samples)

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        with _timed(self.seconds, name):
            yield


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started


def _model(name: str) -> Model:
    role = "control" if name.endswith("_shuffled") else "baseline"
    role = "window" if name == SHORT_TREES else role
    against = NEURAL if role == "control" else ""
    return Model(name, role, DESCRIPTIONS[name], against)  # type: ignore[arg-type]


def _data_facts(events: Events) -> dict[str, Any]:
    label, day = np.asarray(events.label), np.asarray(events.time_s) // DAY_S
    pattern = np.asarray(events.pattern)
    facts: dict[str, Any] = {
        "source": events.name,
        "events": len(events),
        "known frauds": int((label == 1).sum()),
        "known legitimate": int((label == 0).sum()),
        "unknown labels": int((label < 0).sum()),
        "days": int(day[-1] - day[0] + 1),
        "entities": ", ".join(events.entity_roles),
    }
    for value, name in enumerate(events.pattern_names[1:], start=1):
        facts[f"frauds: {name}"] = int(((pattern == value) & (label == 1)).sum())
    return facts


def _summary(events: Events, layout: Plan, cfg: FraudTrainConfig) -> str:
    first: TestPeriod = layout.periods[0]
    window = f"the last {cfg.split.train_days:g} days of" if cfg.split.train_days else "all"
    return (
        f"{len(layout.periods)} test period(s) from {first.name} on; the models are trained anew "
        f"{len(layout.refreshes)} times on {window} labels that are "
        f"{cfg.data.label_delay_days:g} days old or older"
        + (" (1,000 events count as a day)." if events.clock == "events" else ".")
    )


def _limits(events: Events, *, smoke: bool) -> list[str]:
    limits = []
    if smoke:
        limits.append("A smoke run on a shrunk world: its numbers show that the code runs.")
    if events.name in ("handbook", "rings"):
        limits.append("Simulated payments: the scores say nothing about real fraud.")
    if events.name == "s_ffsd":
        limits.append("The file is simulated from real data; 62 % of its rows have no label.")
    limits.append("Intervals draw accounts anew; they do not hold the noise of training anew.")
    return limits
