"""An evaluation's numbers in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from kits.medical.evaluation_report import GROUPS, interval, number, share, share_interval
from kits.medical.metrics.froc import FP_RATES, RATE_NAMES


def dice_table(metrics: Mapping[str, Any]) -> Table:
    """By size and texture: the model and the human against the same references."""
    table = Table(
        "nodules",
        title="3D Dice against the consensus of the other readers",
        caption="ratio: model / human; best: of the best mask one could draw knowing all readers",
    )
    for head in ("number", "model", "human", "ratio", "95 %", "best"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, words in GROUPS:
        end = f".{name}" if name else ""
        if metrics.get(f"num_nodules{end}"):
            table.add_row(
                words,
                str(metrics[f"num_nodules{end}"]),
                number(metrics.get(f"dice_vs_others{end}")),
                number(metrics.get(f"human_dice_vs_others{end}")),
                number(metrics.get(f"human_normalised_dice{end}")),
                interval(metrics, f"human_normalised_dice{end}", 2),
                number(metrics.get(f"oracle_normalised_dice{end}")),
            )
        elif f"dice_vs_one_reader{end}" in metrics:
            value = metrics[f"dice_vs_one_reader{end}"]
            table.add_row(words, "", number(value), "one reader", "–", "", "–")
    return table


def finding_table(metrics: Mapping[str, Any]) -> Table:
    """Sensitivity with its false positives; empty for patches."""
    table = Table("FP/scan, at most", title="Nodules found without being told")
    for head in ("sensitivity", "95 %"):
        table.add_column(head, justify="right")
    if "cpm" in metrics:
        for rate, name in zip(FP_RATES, RATE_NAMES, strict=True):
            key = f"sensitivity_at_{name}_fp"
            table.add_row(f"{rate:g}", share(metrics[key]), share_interval(metrics, key))
        table.add_row("CPM", number(metrics["cpm"]), interval(metrics, "cpm"))
    return table
