"""Train a student on what a finished run says: `python -m kits.defect.distill teacher=<run>`."""

from __future__ import annotations

from core.launch import launch
from kits.defect.config import DistillRunConfig
from kits.defect.kit import KIT


def distill(cfg: DistillRunConfig) -> None:
    """Fit the student on labels and teacher, evaluate it, report what was kept and lost."""
    from kits.defect.distilling import distill_run

    try:
        distill_run(cfg)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    launch(distill, KIT, "distill")
