"""The medical kit as a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.convert.config import ExportConfig
from core.kit import Exportable, Kit
from kits.medical.config import (
    DistillRunConfig,
    EvaluateConfig,
    MedicalServeConfig,
    MedicalTrainConfig,
    ReportConfig,
)
from kits.medical.data.config import LidcData, MsdData, NiftiData, NodulesData, PhantomData
from kits.medical.model_config import SmallTeacherConfig, StudentConfig, TeacherConfig


def _build_task(cfg: MedicalTrainConfig) -> Any:
    from kits.medical.task import build_task

    return build_task(cfg)


def _build_service(cfg: MedicalServeConfig) -> Any:
    from kits.medical.service import MedicalService

    return MedicalService.open(Path(cfg.bundle or ""))


def _open_run(run: Path) -> Exportable:
    from kits.medical.exportable import open_run

    return open_run(run)


KIT = Kit(
    name="medical",
    schemas={
        "train": MedicalTrainConfig,
        "distill": DistillRunConfig,
        "evaluate": EvaluateConfig,
        "export": ExportConfig,
        "report": ReportConfig,
        "serve": MedicalServeConfig,
    },
    groups={
        "data": {
            "phantom": PhantomData,
            "lidc": LidcData,
            "nodules": NodulesData,
            "nifti": NiftiData,
            "msd": MsdData,
        },
        "model": {
            "teacher": TeacherConfig,
            "teacher_small": SmallTeacherConfig,
            "student": StudentConfig,
        },
    },
    build_task=_build_task,
    build_service=_build_service,
    open_run=_open_run,
)
