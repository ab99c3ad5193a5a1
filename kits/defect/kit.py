"""The defect kit as a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.convert.config import ExportConfig
from core.kit import Exportable, Kit
from kits.defect.config import (
    DefectServeConfig,
    DefectTrainConfig,
    DistillRunConfig,
    EvaluateConfig,
)
from kits.defect.data.config import (
    CocoData,
    DeepPcbData,
    LabelmeData,
    NeuData,
    RenderConfig,
    RenderedData,
    VocData,
    YoloData,
)
from kits.defect.learn_config import LearnConfig
from kits.defect.line.config import InspectConfig
from kits.defect.model_config import (
    FullConfig,
    HalfKitConfig,
    KitConfig,
    QuarterKitConfig,
    TinyConfig,
)
from kits.defect.optics_config import OpticsPlanConfig


def _build_task(cfg: DefectTrainConfig) -> Any:
    from kits.defect.task import build_task

    return build_task(cfg)


def _build_service(cfg: DefectServeConfig) -> Any:
    from kits.defect.service import DefectService

    return DefectService.open(Path(cfg.bundle or ""))


def _open_run(run: Path) -> Exportable:
    from kits.defect.exportable import open_run

    return open_run(run)


KIT = Kit(
    name="defect",
    schemas={
        "train": DefectTrainConfig,
        "distill": DistillRunConfig,
        "evaluate": EvaluateConfig,
        "export": ExportConfig,
        "serve": DefectServeConfig,
        "learn": LearnConfig,
        "inspect": InspectConfig,
        "optics": OpticsPlanConfig,
        "render": RenderConfig,
    },
    groups={
        "data": {
            "rendered": RenderedData,
            "coco": CocoData,
            "voc": VocData,
            "yolo": YoloData,
            "labelme": LabelmeData,
            "deeppcb": DeepPcbData,
            "neu": NeuData,
        },
        "model": {
            "kit": KitConfig,
            "kit_half": HalfKitConfig,
            "kit_quarter": QuarterKitConfig,
            "yolov7_tiny": TinyConfig,
            "yolov7": FullConfig,
        },
    },
    build_task=_build_task,
    build_service=_build_service,
    open_run=_open_run,
)
