"""The fraud kit as a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.convert.config import ExportConfig
from core.kit import Exportable, Kit
from kits.fraud.config import EvaluateConfig, FraudServeConfig, FraudTrainConfig
from kits.fraud.data.config import HandbookData, RingsData, SFfsdData, TableData
from kits.fraud.model_config import LstmGatConfig


def _build_task(cfg: FraudTrainConfig) -> Any:
    from kits.fraud.neural import build_task

    return build_task(cfg)


def _build_service(cfg: FraudServeConfig) -> Any:
    from kits.fraud.service import FraudService

    return FraudService.open(Path(cfg.bundle or ""))


def _open_run(run: Path) -> Exportable:
    from kits.fraud.exportable import open_run

    return open_run(run)


KIT = Kit(
    name="fraud",
    schemas={
        "train": FraudTrainConfig,
        "evaluate": EvaluateConfig,
        "export": ExportConfig,
        "serve": FraudServeConfig,
    },
    groups={
        "data": {
            "handbook": HandbookData,
            "rings": RingsData,
            "s_ffsd": SFfsdData,
            "table": TableData,
        },
        "model": {"lstm_gat": LstmGatConfig},
    },
    build_task=_build_task,
    build_service=_build_service,
    open_run=_open_run,
)
