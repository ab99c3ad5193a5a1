"""A run's numbers for people: `report.html`, one file without scripts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kits.fraud import plots
from kits.fraud.metrics import MAX_FPR, TOP_K, operating_points
from kits.fraud.scores import Scored, Scores
from kits.fraud.tables import (
    CAPTIONS,
    COLUMNS,
    DETECTABLE,
    RECALL,
    Cell,
    Column,
    comparison_rows,
    format_value,
    interval,
    number,
    percent,
    printable,
    signed,
)

FACTS_FILE = "facts.json"
REPORT_FILE = "report.html"
RATES = (0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02)  # bounds of the threshold table
NUM_FEATURES = 25


@dataclass(frozen=True)
class LeakCheck:
    """Outcome of one test against knowledge from the future."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Facts:
    """What a report tells beyond the scores; kept as `facts.json` in the run folder."""

    title: str = "Fraud detection"
    summary: str = ""  # a sentence on data and split, below the title
    importance: Mapping[str, float] = field(default_factory=dict)  # feature -> share of gain
    leak_checks: Sequence[LeakCheck] = ()
    data: Mapping[str, Any] = field(default_factory=dict)  # name -> value, shown in this order
    seconds: Mapping[str, float] = field(default_factory=dict)  # stage -> wall time
    references: Sequence[Mapping[str, Any]] = ()  # published rows: {"name": ..., "ap": ...}
    limits: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)  # further keys for metrics.json

    def save(self, run: Path) -> None:
        """Write `facts.json` into a run folder."""
        text = json.dumps(asdict(self), indent=2, allow_nan=False)
        (run / FACTS_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, run: Path) -> "Facts":
        """Read `facts.json` of a run folder."""
        content = json.loads((run / FACTS_FILE).read_text(encoding="utf-8"))
        content["leak_checks"] = [LeakCheck(**check) for check in content["leak_checks"]]
        return cls(**content)


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows."""

    scores: Scores
    metrics: Mapping[str, float]  # flat keys, as in metrics.json
    facts: Facts = field(default_factory=Facts)
    environment: Mapping[str, Any] = field(default_factory=dict)  # environment.json
    data: Mapping[str, Any] = field(default_factory=dict)  # data.json
    config: str = ""  # config.yaml


def write_report(run: Path, content: ReportContent) -> Path:
    """Write `report.html` into a run folder: one file, no scripts, nothing fetched.

    Returns:
        its path.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {"number": number, "percent": percent, "signed": signed}
    html = environment.get_template("report.html.j2").render(**_view(content))
    path = run / REPORT_FILE
    partial = path.with_name(path.name + ".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
    return path


def gain_sentence(metrics: Mapping[str, float], prefix: str, what: str, over: str) -> str:
    """One plain sentence: what a part adds in AP, with its interval, even when it is nothing."""
    value, low, high = (metrics[f"{prefix}ap{end}"] for end in ("", ".low", ".high"))
    interval = f"{signed(value)} (95 % interval {signed(low)} to {signed(high)})"
    if low > 0:
        return f"{what} adds {interval} of average precision over {over}."
    if high < 0:
        return f"{what} costs average precision against {over}: {interval}."
    return (
        f"{what} adds nothing measurable over {over}: the difference in average precision is "
        f"{interval}, and the interval holds zero."
    )


def _view(content: ReportContent) -> dict[str, Any]:
    """What the template shows, ready to print."""
    scores, metrics, facts = content.scores, content.metrics, content.facts
    primary = scores.primary
    test, validation = scores.weeks(primary)
    weeks = list(test.values())
    comparable = [m.name for m in scores.models if m.role in ("primary", "baseline")]
    descriptions = {model.name: model.description for model in scores.models}
    curves = {name: list(scores.weeks(name)[0].values()) for name in comparable}
    calibrated = all(week.probability is not None for week in weeks)
    shown = [week.probability if calibrated else week.score for week in weeks]
    pooled, label = np.concatenate(shown), np.concatenate([week.label for week in weeks])
    return {
        "content": content,
        "environment": content.environment,
        "facts": facts,
        "metrics": metrics,
        "max_fpr": MAX_FPR,
        "primary": primary,
        "columns": COLUMNS,
        "captions": CAPTIONS,
        "headline": _headline(metrics),
        "rows": comparison_rows(
            metrics, facts.references, primary=primary, descriptions=descriptions
        ),
        "week_rows": _week_rows(metrics, list(test)),
        "scenario_rows": _scenario_rows(scores, metrics, weeks),
        "thresholds": _threshold_rows(test, validation),
        "gain": _gain(scores, metrics),
        "controls": _controls(scores, metrics),
        "curve": plots.precision_recall(curves, primary),
        "legend": [
            (name, "accent" if name == primary else f"series-{place % plots.NUM_SERIES}", metrics)
            for place, name in enumerate(curves)
        ],
        "ap_of": {
            name: metrics.get("ap" if name == primary else f"baseline.{name}.ap")
            for name in comparable
        },
        "reliability": plots.reliability(pooled, label) if calibrated else None,
        "histogram": plots.histogram(
            pooled, label, "Calibrated probability of fraud" if calibrated else "Score"
        ),
        "importance": _importance(facts.importance),
        "packages": _packages(content.environment),
    }


def _headline(metrics: Mapping[str, float]) -> list[dict[str, str]]:
    """The numbers at the top of the page."""
    rivals = comparison_rows(metrics)[1:]
    cards = []
    for place, column in enumerate(COLUMNS):
        if column.key not in ("ap", "auc", f"cp_at_{TOP_K}", DETECTABLE, "fpr_test"):
            continue
        card = {
            "title": {
                "ap": "Average precision",
                "auc": "ROC AUC",
                f"cp_at_{TOP_K}": f"Card precision@{TOP_K}",
                DETECTABLE: "Detectable recall",
                "fpr_test": "False positive rate",
            }[column.key],
            "value": format_value(metrics.get(column.key), column),
            "interval": interval(metrics, column.key, column),
            "note": f"bound {percent(MAX_FPR)}, threshold from validation",
        }
        if column.key != "fpr_test":
            known = [
                (metrics[f"baseline.{row.name}.{column.key}"], row.cells[place].text)
                for row in rivals
                if row.role == "baseline" and f"baseline.{row.name}.{column.key}" in metrics
            ]
            notes = [f"best baseline {max(known)[1]}"] if known else []
            if column.key != DETECTABLE and f"oracle.{column.key}" in metrics:
                notes.append(f"ceiling {format_value(metrics[f'oracle.{column.key}'], column)}")
            card["note"] = " · ".join(notes)
        cards.append(card)
    return cards


def _week_rows(metrics: Mapping[str, float], weeks: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": week,
            "events": metrics[f"week.{week}.num_events"],
            "frauds": metrics[f"week.{week}.num_frauds"],
            "threshold": metrics[f"week.{week}.threshold"],
            "cells": [
                Cell(
                    format_value(metrics.get(f"week.{week}.{column.key}"), column),
                    interval(metrics, f"week.{week}.{column.key}", column),
                )
                for column in COLUMNS
            ],
        }
        for week in weeks
    ]


def _scenario_rows(
    scores: Scores, metrics: Mapping[str, float], weeks: Sequence[Scored]
) -> list[dict[str, Any]]:
    rates = (Column(RECALL, "", "", percent=True), Column(DETECTABLE, "", "", percent=True))
    rows = []
    for value, name in enumerate(scores.pattern_names):
        ours = [(week.label == 1) & (week.pattern == value) for week in weeks]
        frauds = sum(int(mask.sum()) for mask in ours)
        if value == 0 or frauds == 0:
            continue
        seen = sum(int((m & week.detectable).sum()) for m, week in zip(ours, weeks, strict=True))
        prefixes = ["", f"baseline.{scores.trees}."] if scores.trees else [""]
        cells = [
            Cell(
                format_value(metrics.get(f"{prefix}scenario.{name}.{column.key}"), column),
                interval(metrics, f"{prefix}scenario.{name}.{column.key}", column),
            )
            for prefix in prefixes
            for column in rates
        ]
        rows.append({"name": name, "frauds": frauds, "seen": seen / frauds, "cells": cells})
    return rows


def _threshold_rows(
    test: Mapping[str, Scored], validation: Mapping[str, Scored]
) -> list[dict[str, float]]:
    """The mean of the weeks, per bound."""
    tables = [operating_points(validation[name], test[name], RATES) for name in test]
    rows = []
    for same_bound in zip(*tables, strict=True):
        keys = [key for key in same_bound[0] if all(key in row for row in same_bound)]
        row = {key: float(np.mean([row[key] for row in same_bound])) for key in keys}
        rows.append({"precision": float("nan")} | row)
    return rows


def _gain(scores: Scores, metrics: Mapping[str, float]) -> dict[str, Any] | None:
    """What the neural part adds over the trees."""
    if scores.trees is None or "neural_gain.ap" not in metrics:
        return None
    return {
        "sentence": gain_sentence(metrics, "neural_gain.", "The neural part", scores.trees),
        "plot": plots.differences(
            _difference_rows(metrics, "neural_gain."), "What the neural part adds over the trees"
        ),
    }


def _controls(scores: Scores, metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """What each removed or broken part was worth."""
    return [
        {
            "name": model.name,
            "description": model.description,
            "against": model.against or scores.primary,
            "cells": _difference_rows(metrics, f"control.{model.name}.worth."),
        }
        for model in scores.models
        if model.role == "control" and f"control.{model.name}.worth.ap" in metrics
    ]


def _difference_rows(
    metrics: Mapping[str, float], prefix: str
) -> list[tuple[str, float, float, float]]:
    return [
        (
            column.title,
            metrics[prefix + column.key],
            metrics[f"{prefix}{column.key}.low"],
            metrics[f"{prefix}{column.key}.high"],
        )
        for column in COLUMNS[:6]
        if f"{prefix}{column.key}.low" in metrics
    ]


def _importance(importance: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(feature, share of the total, share of the largest) of the first features."""
    total, largest = sum(importance.values()) or 1.0, max(importance.values(), default=0.0) or 1.0
    ranked = sorted(importance.items(), key=lambda item: (-item[1], item[0]))[:NUM_FEATURES]
    return [(name, value / total, value / largest) for name, value in ranked]


def _packages(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = [
        "deepkits",
        "torch",
        "numpy",
        "scikit-learn",
        "lightgbm",
        "xgboost-cpu",
        "duckdb",
        "pyarrow",
    ]
    packages = environment.get("packages", {})
    return [(name, packages[name]) for name in shown if name in packages]


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
