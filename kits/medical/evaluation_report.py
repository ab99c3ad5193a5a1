"""An evaluation's numbers for people: `report.html`, one file without scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.train.run import write_atomic
from kits.medical import evaluation_plots as plots
from kits.medical.evaluation import ALPHAS, FOUND_RATE, Evaluation
from kits.medical.findings import TEXTURES
from kits.medical.metrics.froc import FP_RATES, RATE_NAMES

NUM_WORST = 8
DATA_NAMES = {
    "phantom": "phantoms: real reader masks in a simulated chest",
    "lidc": "LIDC-IDRI, whole scans",
    "nodules": "patches of LIDC-IDRI around one nodule each",
    "nifti": "your own volumes and masks",
    "msd": "Decathlon, Task06_Lung",
}
# Keys after dice_ and human_dice_, in the order of the conventions; what each means in words.
CONVENTIONS = (
    ("vs_readers", "1", "each reader by each other", "3D, mean over nodules"),
    ("vs_consensus_with_self", "2", "≥ 50 % consensus of all", "3D; the human is part of it"),
    ("vs_others", "3", "≥ 50 % consensus of the others", "3D; the fair one, used above"),
    ("pooled_vs_others", "4", "as 3, voxels pooled", "large nodules decide"),
    ("central_slice", "5", "as 2, the central slice", "2D"),
    ("contour_kept_vs_others", "6", "as 3, contour pixels kept", "all masks one pixel wider"),
)
GROUPS = (*plots.SIZE_LABELS.items(), *((name, name.replace("_", "-")) for name in TEXTURES))


@dataclass(frozen=True)
class Card:
    """One headline number."""

    title: str
    value: str
    interval: str
    note: str


def write_report(path: Path, found: Evaluation, run: Path, facts: Mapping[str, Any]) -> Path:
    """Write the page.

    Args:
        path: of the page.
        found: what to show; `found.metrics` with what `evaluate_run` knows of the data.
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
    environment.filters |= {"number": number, "share": share}
    html = environment.get_template("evaluation.html.j2").render(**_view(found, run, facts))
    write_atomic(path, html)
    return path


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def share(value: float | None, digits: int = 1) -> str:
    """A share in percent, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def interval(metrics: Mapping[str, Any], key: str, digits: int = 3) -> str:
    """The 95 % interval of a number; empty where there is none."""
    low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
    return "" if low is None else f"{low:.{digits}f} to {high:.{digits}f}"


def share_interval(metrics: Mapping[str, Any], key: str) -> str:
    """The 95 % interval of a share, in percent; empty where there is none."""
    low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
    return "" if low is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def _view(found: Evaluation, run: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    metrics = found.metrics
    return {
        "metrics": metrics,
        "facts": facts,
        "environment": _read(run / "environment.json"),
        "is_smoke": _is_smoke(run),
        "data_name": DATA_NAMES.get(metrics["data"], metrics["data"]),
        "intensity": found.seen.intensity,
        "cards": _cards(metrics),
        "groups": _groups(metrics),
        "one_reader": _one_reader(metrics),
        "conventions": [
            (*words, metrics[f"dice_{key}"], metrics[f"human_dice_{key}"])
            for key, *words in CONVENTIONS
            if f"dice_{key}" in metrics
        ],
        "bars": plots.size_bars(metrics) if found.agreements else "",
        "scatter": plots.nodule_scatter(found.agreements) if found.agreements else "",
        "froc": plots.froc_curve(found.curve) if found.curve else "",
        "rates": _rates(metrics),
        "conformal": _conformal(metrics),
        "found_rate": FOUND_RATE,
        "worst": _worst(found),
        "notes": found.seen.notes,
    }


def _cards(metrics: Mapping[str, Any]) -> list[Card]:
    cards = []
    key = "human_normalised_dice"
    if key in metrics:
        cards.append(
            Card(
                "Dice over the human’s",
                number(metrics[key]),
                interval(metrics, key),
                f"worst size {number(metrics[f'{key}.worst_size_bin'])}; best possible mask "
                f"{number(metrics['oracle_normalised_dice'])}",
            )
        )
        cards.append(
            Card(
                "Model / human, same references",
                f"{number(metrics['dice_vs_others'])} / {number(metrics['human_dice_vs_others'])}",
                interval(metrics, "dice_vs_others"),
                "3D Dice against the others’ consensus",
            )
        )
    if "cpm" in metrics:
        at_one = "sensitivity_at_1_fp"
        cards.append(
            Card("CPM", number(metrics["cpm"]), interval(metrics, "cpm"), "1/8 to 8 FP/scan")
        )
        cards.append(
            Card(
                "Sensitivity at 1 FP/scan",
                share(metrics[at_one]),
                share_interval(metrics, at_one),
                f"{metrics['num_targets']} nodules in {metrics['num_scans']} scans",
            )
        )
    if "volume_error_percent" in metrics:
        spread = metrics.get("human_volume_cv_percent")
        cards.append(
            Card(
                "Volume error, median",
                f"{metrics['volume_error_median_percent']:.1f} %",
                f"mean {metrics['volume_error_percent']:.1f} %",
                "" if spread is None else f"readers scatter by {spread:.1f} %",
            )
        )
    return cards


def _groups(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, words in GROUPS:
        end = f".{name}" if name else ""
        if metrics.get(f"num_nodules{end}"):
            rows.append(
                {
                    "name": words,
                    "nodules": metrics[f"num_nodules{end}"],
                    "patients": metrics[f"num_patients{end}"],
                    "intervals": {
                        key: interval(metrics, f"{key}{end}")
                        for key in ("dice_vs_others", "human_normalised_dice")
                    },
                    **{
                        key: metrics.get(f"{key}{end}")
                        for key in (
                            "dice_vs_others",
                            "human_dice_vs_others",
                            "human_normalised_dice",
                            "oracle_normalised_dice",
                            "baseline_threshold_normalised_dice",
                        )
                    },
                }
            )
    return rows


def _one_reader(metrics: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    keys = ((words, f"dice_vs_one_reader{'.' * bool(name)}{name}") for name, words in GROUPS)
    return [(words, metrics[key], interval(metrics, key)) for words, key in keys if key in metrics]


def _rates(metrics: Mapping[str, Any]) -> list[tuple[str, float, str, float | None]]:
    if "cpm" not in metrics:
        return []
    rows = []
    for rate, name in zip(FP_RATES, RATE_NAMES, strict=True):
        key = f"sensitivity_at_{name}_fp"
        words = f"{rate:g}" if rate >= 1 else f"1/{1 / rate:g}"
        rows.append(
            (
                words,
                metrics[key],
                share_interval(metrics, key),
                metrics.get(f"threshold_at_{name}_fp"),
            )
        )
    return rows


def _conformal(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for alpha in ALPHAS:
        start = f"conformal_{100 * alpha:g}_percent."
        values = {key.removeprefix(start): metrics[key] for key in metrics if key.startswith(start)}
        if values:
            names = ("threshold", "miss_rate", "fp_per_scan", "tolerance")
            rows.append({"alpha": alpha, **dict.fromkeys(names), **values})
    return rows


def _worst(found: Evaluation) -> list[dict[str, Any]]:
    """The nodules on which the model is farthest below the human."""
    drawn = {one.outlines.name: one for one in found.seen.drawn}
    gap = sorted(
        found.agreements,
        key=lambda one: (one.model["vs_others"] - one.human["vs_others"], one.name),
    )
    return [
        {
            "name": one.name,
            "size": one.diameter_mm,
            "texture": (one.texture or "").replace("_", "-"),
            "model": one.model["vs_others"],
            "human": one.human["vs_others"],
            "plot": plots.picture(drawn[one.name], place),
        }
        for place, one in enumerate(gap[:NUM_WORST])
    ]


def _is_smoke(run: Path) -> bool:
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return bool(config.get("trainer", {}).get("smoke", False))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
