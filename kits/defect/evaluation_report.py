"""An evaluation's numbers for people: `report.html`, one file without scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.train.run import write_atomic
from kits.defect.evaluation import LOOSE, SIZES, Evaluation, sizes_of
from kits.defect.evaluation_plots import picture, pod_curve
from kits.defect.metrics.matching import Scored, match

NUM_PICTURES = 12
LABELS = {
    "width_mm": "width in mm",
    "length_mm": "length in mm",
    "contrast_to_noise": "contrast to noise",
}
HEADLINES = (
    ("mAP at IoU .5", "map50", "mean over classes"),
    ("mAP .5 to .95", "map50_95", "mean over ten overlaps"),
    ("F at IoU .33", "f_at_iou_0.33", "at the run's threshold"),
    ("Length found", "length_recall", "of line-like defects, by mm"),
)
BOUNDS = (
    ("Defects found", "detection_rate", "lower_95", "above"),
    ("Defective images found", "part_detection_rate", "lower_95", "above"),
    ("Good images rejected", "false_reject_rate", "upper_95", "below"),
)


def write_report(
    path: Path,
    found: Evaluation,
    metrics: Mapping[str, Any],
    run: Path,
    facts: Mapping[str, Any],
) -> Path:
    """Write the page.

    Args:
        path: of the page.
        found: what to show.
        metrics: the content of metrics.json.
        run: the run's folder, whose environment is shown.
        facts: of the run's model.
    Returns:
        the path.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    curves = [
        (LABELS[name], pod_curve(*sizes_of(found.images, found.threshold, what), LABELS[name]))
        for name, what in SIZES.items()
    ]
    html = environment.get_template("evaluation.html.j2").render(
        metrics=metrics,
        facts=facts,
        environment=_read(run / "environment.json"),
        is_smoke=_is_smoke(run),
        headlines=[
            (title, f"{metrics[key]:.3f}", _interval(metrics, key), note)
            for title, key, note in HEADLINES
            if key in metrics
        ],
        bounds=[
            (
                title, f"{100 * metrics[key]:.2f} %",
                f"95 % sure: {word} {100 * metrics[f'{key}.{bound}']:.2f} %",
                f"{metrics[f'{key}.hits']} of {metrics[f'{key}.tries']}",
            )
            for title, key, bound, word in BOUNDS
            if key in metrics
        ],
        class_names=found.class_names,
        confusion=found.confusion().tolist(),
        curves=[(label, curve, _sizes(metrics, label)) for label, curve in curves if curve],
        pictures=_pictures(found),
    )  # fmt: skip
    write_atomic(path, html)
    return path


def _pictures(found: Evaluation) -> list[tuple[str, str, Any]]:
    """The images with most mistakes, the worst first."""
    rows = []
    for one in found.images:
        shown = one.found.above(found.threshold)
        places = match(Scored(one.truth, shown), (LOOSE,), by_class=False)[:, 0]
        missed = len(one.truth.classes) - int((places >= 0).sum())
        false = int((places < 0).sum())
        rows.append((missed + false, missed, false, one, places, shown))
    rows.sort(key=lambda row: -row[0])
    return [
        (one.truth.name, f"{missed} missed, {false} false", picture(one, places, shown))
        for _, missed, false, one, places, shown in rows[:NUM_PICTURES]
    ]


def _interval(metrics: Mapping[str, Any], key: str) -> str:
    low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
    return "" if low is None else f"{low:.3f} to {high:.3f}"


def _sizes(metrics: Mapping[str, Any], label: str) -> str:
    name = next(key for key, value in LABELS.items() if value == label)
    parts = [
        f"{word} {metrics[f'pod.{name}.{key}']:.3g}"
        for key, word in (("a90", "a90"), ("a90_95", "a90/95"))
        if f"pod.{name}.{key}" in metrics
    ]
    return ", ".join(parts) or "no 90 % among these sizes"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _is_smoke(run: Path) -> bool:
    path = run / "config.yaml"
    if not path.is_file():
        return False
    return bool(yaml.safe_load(path.read_text(encoding="utf-8"))["trainer"]["smoke"])
