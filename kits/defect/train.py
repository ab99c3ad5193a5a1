"""Train a network of the defect kit and leave metrics and a report in a run folder."""

from __future__ import annotations

from core.launch import launch
from kits.defect.config import DefectTrainConfig
from kits.defect.kit import KIT


def train(cfg: DefectTrainConfig) -> None:
    """Fit the network on the training split, evaluate it on the test split."""
    from kits.defect.training import train_run

    try:
        train_run(cfg)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    launch(train, KIT, "train")
