"""The main numbers of a run in a few lines, as a command ends with them: `summary.txt`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.train.run import write_atomic

SUMMARY_FILE = "summary.txt"


def write_headline(run: Path, metrics: Mapping[str, Any], *, is_smoke: bool) -> str:
    """Write summary.txt of a run and give its text."""
    lines = [*_about(metrics, is_smoke), *_worth(metrics), *_kept(metrics), *_where(run, metrics)]
    text = "\n".join(lines) + "\n"
    write_atomic(run / SUMMARY_FILE, text)
    return text


def _about(metrics: Mapping[str, Any], is_smoke: bool) -> list[str]:
    count = metrics["num_cases"]
    cases = f"{count} case{'s' * (count != 1)}"
    of = f"{cases} of data={metrics['data']}, {metrics['split']} split"
    notes = ["simulated: no patient was seen"] * bool(metrics["is_phantom"])
    notes += ["smoke run: these numbers mean nothing"] * is_smoke
    return ["; ".join([of, *notes])]


def _worth(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    if "cpm" in metrics:
        key = "sensitivity_at_1_fp"
        low, high = metrics[f"{key}.low"], metrics[f"{key}.high"]
        lines.append(
            f"finds {metrics[key]:.1%} ({low:.1%} to {high:.1%}) of {metrics['num_targets']} "
            f"nodules at 1 false positive per scan; CPM {metrics['cpm']:.3f}"
        )
    key = "human_normalised_dice"
    if key in metrics:
        low, high = metrics[f"{key}.low"], metrics[f"{key}.high"]
        lines.append(
            f"Dice against the other readers {metrics[key]:.3f} ({low:.3f} to {high:.3f}) of a "
            f"reader's own {metrics['human_dice_vs_others']:.3f}"
        )
    return lines


def _kept(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    key = "retention.hits_kept_at_1_fp"
    if key in metrics:
        lines.append(
            f"of the teacher's {metrics[f'{key}.of']:.0f} hits the student keeps "
            f"{metrics[key]:.1%} (95 % sure: {metrics[f'{key}.low']:.1%} or more)"
        )
    key = "retention.dice_loss_points"
    if key in metrics:
        low, high = metrics[f"{key}.low"], metrics[f"{key}.high"]
        lines.append(f"Dice lost: {metrics[key]:+.2f} points ({low:+.2f} to {high:+.2f})")
    key = "retention.flop_per_voxel_ratio"
    if key in metrics:
        published = metrics["retention.published_flop_per_voxel_ratio"]
        lines.append(
            f"operations per voxel: 1/{metrics[key]:.1f} of this teacher's, 1/{published:.1f} of "
            "the published size's"
        )
    return lines


def _where(run: Path, metrics: Mapping[str, Any]) -> list[str]:
    pages = ["report.html"] + ["report_retention.html"] * ("retention.steps" in metrics)
    return [f"reports: {', '.join(str(run / page) for page in pages)}"]
