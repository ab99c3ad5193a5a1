"""Train the fraud kit's models and compare them with their baselines."""

from __future__ import annotations

from core.launch import launch
from kits.fraud.config import FraudTrainConfig
from kits.fraud.kit import KIT


def train(cfg: FraudTrainConfig) -> None:
    """Run the prequential protocol and leave metrics, models and a report in a run folder."""
    from kits.fraud.prequential import run_prequential

    run_prequential(cfg)


if __name__ == "__main__":
    launch(train, KIT, "train")
