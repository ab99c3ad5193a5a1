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
    # Convolutions of a level on the way down; the first one of a level has stride 2.
    convolutions: int = 2
    # Convolutions of a level on the way up.
    decoder_convolutions: int = 2
    # A sum past the convolutions of a level on the way down.
    residual: bool = False
    # batch (folds into the convolutions) or instance.
    norm: str = "batch"
    # How a level comes up: transposed (learned, its skip concatenated) or nearest (narrowed first,
    # its skip added: a third of the work, and only operators that have 8-bit kernels).
    upsampling: str = "transposed"
    # Of the coarsest levels, how many halve rows and columns only: slices are few and thick.
    flat: int = 0
    # Slope of the activation below zero; 0 is a ReLU, which fuses into 8-bit convolutions.
    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise ValueError(f"model.widths={self.widths} needs two levels or more of 1 or more")
        for name, legal in (
            ("norm", ("batch", "instance")),
            ("upsampling", ("transposed", "nearest")),
        ):
            if getattr(self, name) not in legal:
                raise ValueError(
                    f"model.{name}={getattr(self, name)!r} is not one of {', '.join(legal)}"
                )
        if not 0 <= self.flat < len(self.widths) - 1:
            raise ValueError(
                f"model.flat={self.flat} is not from 0 to {len(self.widths) - 2}; set model.flat"
            )
        for name in ("convolutions", "decoder_convolutions"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} is below 1; set model.{name}")

    @property
    def multiple(self) -> int:
        """What the size of an input is a multiple of, along each axis."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def reductions(self) -> tuple[int, int, int]:
        """Voxels along (D, H, W) for one of the deepest level."""
        return self.multiple >> self.flat, self.multiple, self.multiple


@dataclass
class TeacherConfig(UNetConfig):
    """The teacher at its published size (125.6 M parameters): for a GPU."""

    name: str = "teacher"
    widths: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 640, 640])
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
    widths: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    decoder_convolutions: int = 1
    upsampling: str = "nearest"
    negative_slope: float = 0.0
