"""What each verb of the defect kit may be told. Dataclasses only: no numpy, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core.compress.config import DistillConfig
from core.serve.config import ModelFile, ServeConfig
from core.train.config import OptimConfig, TrainConfig, TrainerConfig
from kits.defect.data.config import DataConfig, RenderedData, TilingConfig
from kits.defect.distill_config import detector_distillation
from kits.defect.model_config import (
    HalfKitConfig,
    LossConfig,
    ModelConfig,
    QuarterKitConfig,
)
from kits.defect.sampling_config import SamplingConfig


def detector_trainer() -> TrainerConfig:
    """By mAP; half precision keeps it, and is a third faster where processors have it."""
    return TrainerConfig(metric="map50", metric_mode="max", precision="bf16", epochs=13)


def detector_optim() -> OptimConfig:
    """Few steps from nothing: a high rate, and the mean of the last weights."""
    return OptimConfig(lr=2e-3, warmup_steps=200, clip_norm=10.0, ema_decay=0.997)


@dataclass
class DefectTrainConfig(TrainConfig):
    """`python -m kits.defect.train`."""

    trainer: TrainerConfig = field(default_factory=detector_trainer)
    optim: OptimConfig = field(default_factory=detector_optim)
    data: DataConfig = field(default_factory=RenderedData)
    tiling: TilingConfig = field(default_factory=TilingConfig)
    model: ModelConfig = field(default_factory=HalfKitConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass
class DistillRunConfig(DefectTrainConfig):
    """`python -m kits.defect.distill`: the student, and the run it learns from."""

    model: ModelConfig = field(default_factory=QuarterKitConfig)
    # Folder of the teacher's finished run.
    teacher: str = "???"
    distill: DistillConfig = field(default_factory=detector_distillation)


@dataclass
class EvaluateConfig:
    """`python -m kits.defect.evaluate`."""

    # Folder of a finished training run.
    run: str = "???"
    data: DataConfig = field(default_factory=RenderedData)
    # Which split is scored: train, validation, test or all; null: test of the images that the run
    # was trained on, all of any others.
    split: str | None = None
    # Where metrics.json and report.html go; null: the run's folder.
    output: str | None = None


@dataclass
class DefectServeConfig:
    """`python -m kits.defect.serve`."""

    # The bundle; null: the newest one under runs/defect.
    bundle: str | None = None
    server: ServeConfig = field(default_factory=ServeConfig)

    def __post_init__(self) -> None:
        """Find the bundle; the kit serves this one alone, under its own name.

        Raises:
            ValueError: there is none.
        """
        if self.bundle is None:
            found = sorted(Path("runs/defect").glob("*/export/defect.ebundle"))
            self.bundle = str(found[-1]) if found else None
        if self.bundle is None or not Path(self.bundle).exists():
            raise ValueError(
                f"bundle={self.bundle or 'runs/defect/*/export/defect.ebundle'} does not exist; "
                "export a run, or set bundle"
            )
        self.server.models = [ModelFile("defect", Path(self.bundle))]
