"""A finished run's numbers on any images: `python -m kits.defect.evaluate run=<dir> data=voc ...`.

Training ends with the same `evaluate_run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.launch import launch
from kits.defect.config import EvaluateConfig
from kits.defect.kit import KIT

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(cfg: EvaluateConfig) -> None:
    """Look at every image of a split, print the numbers, write metrics.json and report.html."""
    from rich.console import Console
    from rich.progress import Progress

    from kits.defect.data.load import open_images
    from kits.defect.evaluation import REPORT_FILE, evaluate_run

    console = Console()
    output = Path(cfg.output) if cfg.output else Path(cfg.run)
    try:
        images = open_images(cfg.data)
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("images", total=None)

            def told(done: int, total: int, name: str) -> None:
                progress.update(bar, completed=done, total=total, description=name)

            metrics = evaluate_run(Path(cfg.run), images, cfg.split, output, told=told)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    console.print(table(metrics))
    console.print(f"report: {output / REPORT_FILE}", soft_wrap=True)


def table(metrics: dict[str, Any]) -> Table:
    """The headline numbers with their intervals and bounds."""
    from rich.box import SIMPLE
    from rich.table import Table

    found = Table(box=SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
    for name in ("number", "value", "95 %"):
        found.add_column(name, justify="left" if name == "number" else "right", no_wrap=True)
    for key in ("map50", "map50_95", "f_at_iou_0.33", "point_hit_rate", "length_recall"):
        if key in metrics:
            low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
            spread = "" if low is None else f"{low:.3f} to {high:.3f}"
            found.add_row(key, f"{metrics[key]:.3f}", spread)
    for key, bound, word in (
        ("detection_rate", "lower_95", "above"),
        ("part_detection_rate", "lower_95", "above"),
        ("false_reject_rate", "upper_95", "below"),
    ):
        if key in metrics:
            found.add_row(key, f"{metrics[key]:.4f}", f"{word} {metrics[f'{key}.{bound}']:.4f}")
    for key in (key for key in metrics if key.endswith((".a90", ".a90_95"))):
        found.add_row(key, f"{metrics[key]:.3f}", "")
    return found


if __name__ == "__main__":
    launch(evaluate, KIT, "evaluate")
