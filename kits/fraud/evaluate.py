"""Recompute a run's numbers: `python -m kits.fraud.evaluate run=<dir>`.

Training ends with the same `evaluate_run`, so that a run's `metrics.json` and `report.html` always
are what its stored scores say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.launch import launch
from kits.fraud.config import EvaluateConfig
from kits.fraud.kit import KIT

if TYPE_CHECKING:
    from kits.fraud.scores import Scores


def evaluate(cfg: EvaluateConfig) -> None:
    """Evaluate a run and print its comparison table."""
    from rich.console import Console

    from kits.fraud.report import REPORT_FILE, Facts
    from kits.fraud.scores import SCORES_FILE, load_scores
    from kits.fraud.tables import comparison_table

    run = Path(cfg.run)
    if not (run / SCORES_FILE).is_file():
        raise SystemExit(f"error: run={cfg.run} has no {SCORES_FILE}; name a finished run's folder")
    metrics = evaluate_run(run)
    primary = load_scores(run / SCORES_FILE).primary
    console = Console()
    console.print(comparison_table(metrics, Facts.load(run).references, primary=primary))
    console.print(f"report: {run / REPORT_FILE}", soft_wrap=True)


def evaluate_run(run: Path) -> dict[str, Any]:
    """Compute metrics.json and report.html of a run folder from what it stores.

    Args:
        run: folder with scores.npz and facts.json; environment.json, data.json and config.yaml are
            shown where they exist.

    Returns:
        the content of metrics.json, flat keys.
    """
    from kits.fraud.report import Facts, ReportContent, write_report
    from kits.fraud.scores import SCORES_FILE, load_scores

    scores, facts = load_scores(run / SCORES_FILE), Facts.load(run)
    metrics = measure(scores) | dict(facts.metrics)
    _write(run / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    config = run / "config.yaml"
    content = ReportContent(
        scores,
        metrics,
        facts,
        environment=_read(run / "environment.json"),
        data=_read(run / "data.json"),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
    )
    write_report(run, content)
    return metrics


def measure(scores: Scores) -> dict[str, Any]:
    """All numbers of a run as flat keys.

    The primary model's metrics have plain keys, with each week's; the others have
    `<role>.<name>.<key>`, `oracle.<key>` is the ranking by the truth as far as it was detectable.
    `neural_gain.<key>` is the primary minus the trees and `control.<name>.worth.<key>` the model a
    control belongs to minus the control, both with paired intervals.
    """
    from kits.fraud.metrics import choose_threshold, difference, evaluate_weeks, oracle

    names = scores.pattern_names
    tests, thresholds = {}, {}
    for model in scores.models:
        tests[model.name], validation = scores.weeks(model.name)
        thresholds[model.name] = {
            week: choose_threshold(scored) for week, scored in validation.items()
        }

    def gap(first: str, second: str) -> dict[str, float]:
        both = [week for week in tests[first] if week in tests[second]]
        one, two = ({week: tests[name][week] for week in both} for name in (first, second))
        return difference(one, two, (thresholds[first], thresholds[second]))

    result: dict[str, Any] = {"smoke": scores.smoke}
    for model in sorted(scores.models, key=lambda model: model.role != "primary"):
        found = evaluate_weeks(tests[model.name], thresholds[model.name], pattern_names=names)
        if model.role == "primary":
            result |= found | {"num_weeks": len(tests[model.name])}
            continue
        found = {key: value for key, value in found.items() if not _is_detail(key)}
        result |= _prefixed(f"{model.role}.{model.name}.", found)
        result[f"{model.role}.{model.name}.num_weeks"] = len(tests[model.name])
    for model in scores.models:
        if model.role == "control":
            worth = gap(model.against or scores.primary, model.name)
            result |= _prefixed(f"control.{model.name}.worth.", worth)
    if scores.trees is not None:
        result |= _prefixed("neural_gain.", gap(scores.primary, scores.trees))
    best = {week: oracle(scored) for week, scored in tests[scores.primary].items()}
    known = evaluate_weeks(best, dict.fromkeys(best, 0.5), num_replicates=0)
    return result | _prefixed("oracle.", {k: v for k, v in known.items() if not _is_detail(k)})


def _is_detail(key: str) -> bool:
    """Keys that only the primary model's numbers are worth: single weeks beyond the metric."""
    return key.startswith("week.") and (
        key.endswith((".low", ".high", "_threshold")) or ".scenario." in key or ".num_" in key
    )


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in values.items()}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    launch(evaluate, KIT, "evaluate")
