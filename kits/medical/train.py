"""Train a network of the medical kit and leave metrics and a report in a run folder."""

from __future__ import annotations

from core.launch import launch
from kits.medical.config import MedicalTrainConfig
from kits.medical.kit import KIT


def train(cfg: MedicalTrainConfig) -> None:
    """Fit the network on the training split, evaluate it on the test split."""
    from kits.medical.training import train_run

    train_run(cfg)


if __name__ == "__main__":
    launch(train, KIT, "train")
