"""What the export verb of every kit may be told. Dataclasses only: no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.compress.config import CompressConfig


@dataclass
class TargetConfig:
    """Which targets a bundle gets; one of configs/shared/target."""

    # Target ids in order of preference: a device takes the first that fits it.
    ids: list[str] = field(default_factory=list)
    # Leave out targets whose package is not installed here, and say so.
    skip_missing: bool = False

    def __post_init__(self) -> None:
        """Check that there is a target, and none twice."""
        if not self.ids or len(set(self.ids)) < len(self.ids):
            raise ValueError(
                f"target.ids={self.ids} is empty or names a target twice; "
                "choose a file of configs/shared/target, or set target.ids"
            )


@dataclass
class ExportConfig:
    """`python -m kits.<kit>.export`."""

    # Folder of a finished training run.
    run: str = "???"
    # Where the bundle and its reports go; null: the run's folder `export`.
    output: str | None = None
    target: TargetConfig = field(default_factory=lambda: TargetConfig(["portable-onnx"]))
    compress: CompressConfig = field(default_factory=CompressConfig)
    # Of the bundle, for people.
    version: str = "0.1.0"
    # Devices follow one: stable, beta, ...
    channel: str = "stable"
    # A device refuses a lower one than it has seen; raise it to retire what came before.
    rollback_index: int = 0
    # Days from the run's end after which devices refuse the bundle; null: never.
    valid_days: float | None = None
    # Put engines into the bundle too that are not the same bytes at each build.
    engines: bool = False
    # Samples of the self-test that every device runs after loading.
    num_vectors: int = 16
    # Seed of the self-test's and the parity check's inputs.
    seed: int = 0
    # Of ONNX; Ascend reads at most 17.
    opset: int = 17

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.num_vectors < 8:
            raise ValueError(f"num_vectors={self.num_vectors} is less than 8; set num_vectors")
        if self.rollback_index < 0:
            raise ValueError(
                f"rollback_index={self.rollback_index} is negative; set rollback_index"
            )
        if self.valid_days is not None and self.valid_days <= 0:
            raise ValueError(f"valid_days={self.valid_days} is not positive; set valid_days")
