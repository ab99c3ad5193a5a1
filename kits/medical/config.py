"""What each verb of the medical kit may be told. Dataclasses only: no numpy, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core.compress.config import DistillConfig
from core.serve.config import ModelFile, ServeConfig
from core.train.config import OptimConfig, TrainConfig, TrainerConfig
from kits.medical.data.config import DataConfig, PhantomData
from kits.medical.distill_config import CONTROLS, nodule_distillation
from kits.medical.model_config import SmallTeacherConfig, StudentConfig, UNetConfig
from kits.medical.sampling_config import LossConfig, SamplingConfig


@dataclass
class MedicalTrainConfig(TrainConfig):
    """`python -m kits.medical.train`."""

    data: DataConfig = field(default_factory=PhantomData)
    model: UNetConfig = field(default_factory=SmallTeacherConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass
class DistillRunConfig(MedicalTrainConfig):
    """`python -m kits.medical.distill`: the student, and the run it learns from."""

    model: UNetConfig = field(default_factory=StudentConfig)
    # Folder of the teacher's finished run.
    teacher: str = "???"
    distill: DistillConfig = field(default_factory=nodule_distillation)
    # The same student without a teacher, to know what distillation is worth: steps (as many),
    # seconds (as much processor time, so more steps), both or none.
    controls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check names."""
        if unknown := sorted(set(self.controls) - set(CONTROLS)):
            raise ValueError(
                f"controls={unknown} are not among {', '.join(CONTROLS)}; set controls"
            )
        if self.controls == ["seconds"]:
            raise ValueError(
                "controls=[seconds] needs the speed that steps measures; "
                "set controls=[steps,seconds]"
            )


@dataclass
class EvaluateConfig:
    """`python -m kits.medical.evaluate`."""

    # Folder of a finished training run.
    run: str = "???"
    data: DataConfig = field(default_factory=PhantomData)
    # Which split is scored; all takes every case of the source.
    split: str = "test"
    # Where metrics.json and report.html go; null: the run's folder.
    output: str | None = None
    # Patches: the mean over four mirror images of the slices; four times slower, a little better.
    mirrored: bool = True


@dataclass
class ReportConfig:
    """`python -m kits.medical.report`: exit status 2 after a mistake, 3 if the scan is refused."""

    # Folder of DICOM files; every series in it is looked at.
    scan: str = "???"
    # A run's folder with its bundle, or a bundle.
    run: str = "???"
    # Where the objects go; it must not exist yet, or be empty.
    output: str = "report"
    # Folder of an earlier scan of the same patient, or of its report.
    prior: str | None = None
    # en, zh: one PDF each.
    languages: list[str] = field(default_factory=lambda: ["en"])
    # Take this series (its UID) instead of the one that is chosen.
    series: str | None = None
    # Threads of prediction; null takes every core.
    threads: int | None = None
    # Findings with a score below this are left out; null: what the run found best on validation.
    threshold: float | None = None
    # Rule sets to apply, in this order: files in kits/medical/results/rules.
    rules: list[str] = field(
        default_factory=lambda: ["lung_rads_2022", "c_lung_rads", "fleischner_2017"]
    )
    # Why the scan was made: screening, incidental, unknown.
    setting: str = "unknown"
    # The patient's risk of lung cancer, which Fleischner asks for: low, high, unknown.
    risk: str = "unknown"
    # Known cancer and immunosuppression, which take a patient out of Fleischner; null: not known.
    cancer: bool | None = None
    immunosuppressed: bool | None = None
    # File of a secret key (kits.medical.results.deidentify.make_key): with it, shared/ in the
    # output holds everything once more, de-identified.
    share_key: str | None = None

    def __post_init__(self) -> None:
        """Check names and ranges."""
        _check_all("languages", self.languages, ("en", "zh"))
        _check_all("rules", self.rules, ("lung_rads_2022", "c_lung_rads", "fleischner_2017"))
        _check_all("setting", [self.setting], ("screening", "incidental", "unknown"))
        _check_all("risk", [self.risk], ("low", "high", "unknown"))
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads} is below 1; set threads, or leave it out")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} is not from 0 to 1; set threshold")


def _check_all(key: str, given: list[str], legal: tuple[str, ...]) -> None:
    unknown = [each for each in given if each not in legal]
    if unknown or not given or len(set(given)) < len(given):
        raise ValueError(
            f"{key}={', '.join(given)} is not a choice of {', '.join(legal)}, each once; set {key}"
        )


@dataclass
class MedicalServeConfig:
    """`python -m kits.medical.serve`."""

    # The bundle; null: the newest one under runs/medical.
    bundle: str | None = None
    server: ServeConfig = field(default_factory=ServeConfig)

    def __post_init__(self) -> None:
        """Find the bundle; the kit serves this one alone, under its own name.

        Raises:
            ValueError: there is none.
        """
        if self.bundle is None:
            found = sorted(Path("runs/medical").glob("*/export/medical.ebundle"))
            self.bundle = str(found[-1]) if found else None
        if self.bundle is None or not Path(self.bundle).exists():
            raise ValueError(
                f"bundle={self.bundle or 'runs/medical/*/export/medical.ebundle'} does not exist; "
                "export a run, or set bundle"
            )
        self.server.models = [ModelFile("medical", Path(self.bundle))]
