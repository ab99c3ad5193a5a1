"""A finished run's numbers on any data: `python -m kits.medical.evaluate run=<dir> data=nodules`.

Training ends with the same `evaluate_run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.launch import launch
from kits.medical.config import EvaluateConfig
from kits.medical.kit import KIT

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(cfg: EvaluateConfig) -> None:
    """Look at every case of a split, print the numbers, write metrics.json and report.html."""
    from rich.console import Console

    from kits.medical.data.load import open_cases
    from kits.medical.evaluation import REPORT_FILE, evaluate_run
    from kits.medical.stages import stage

    console = Console()
    output = Path(cfg.output) if cfg.output else Path(cfg.run)
    try:
        cases = open_cases(cfg.data)
        with stage("looking at cases") as told:
            metrics = evaluate_run(
                Path(cfg.run), cases, cfg.split, output, is_mirrored=cfg.mirrored, told=told
            )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    for table in tables(metrics):
        console.print(table)
    console.print("Research use, unverified.")
    console.print(f"report: {output / REPORT_FILE}", soft_wrap=True)


def tables(metrics: dict[str, Any]) -> list[Table]:
    """What is printed: Dice beside the human's, sensitivity beside its false positives."""
    from kits.medical.evaluation_tables import dice_table, finding_table

    return [table for table in (dice_table(metrics), finding_table(metrics)) if table.row_count]


if __name__ == "__main__":
    launch(evaluate, KIT, "evaluate")
