"""Settings of the networks; a plain dataclass that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class UNetConfig:
    """A 3D U-Net with three heads: mask, heat-map of centres, texture."""

    # The option's own name.
    name: str = ""
    # Channels of each level, finest first; each next level halves the resolution.
    widths: list[int] = field(default_factory=list)
    # Convolutions between two resolutions.
    convolutions: int = 2
    # A sum past the convolutions of a level.
    residual: bool = False
    # batch (folds into the convolutions) or instance.
    norm: str = "batch"

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise ValueError(f"model.widths={self.widths} needs two levels or more of 1 or more")
        if self.norm not in ("batch", "instance"):
            raise ValueError(f"model.norm={self.norm!r} is not one of batch, instance")


@dataclass
class TeacherConfig(UNetConfig):
    """The teacher at its published size (125.6 M parameters): for a GPU."""

    name: str = "teacher"
    widths: list[int] = field(default_factory=lambda: [64, 96, 128, 192, 256, 384, 512, 640])
    residual: bool = True
    norm: str = "instance"


@dataclass
class SmallTeacherConfig(UNetConfig):
    """A teacher that two cores train in minutes."""

    name: str = "teacher_small"
    widths: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    residual: bool = True


@dataclass
class StudentConfig(UNetConfig):
    """What a small hospital's processor runs: at most 8 M parameters and 60.7 kFLOP per voxel."""

    name: str = "student"
    widths: list[int] = field(default_factory=lambda: [8, 16, 32, 64])
