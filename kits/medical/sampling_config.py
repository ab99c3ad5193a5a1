"""Settings of training samples and of the loss; dataclasses that need neither numpy nor torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Voxels of a sample in the network's deepest level, at least. Below this the gradient of a bfloat16
# convolution 3 wide reads memory that nobody wrote (torch 2.14 on x86): it differs from run to run,
# and is infinite now and then.
LEAST_DEEPEST = 3


def _check(group: str, cfg: Any, rules: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in rules.items():
        if not low <= getattr(cfg, name) <= high:
            raise ValueError(
                f"{group}.{name}={getattr(cfg, name)} is not from {low} to {high}; "
                f"set {group}.{name}"
            )


@dataclass
class SamplingConfig:
    """What is cut from the scans, how often, and how it is varied."""

    # Voxels (D, H, W) of a sample at either scale; multiples of the network's own.
    patch: list[int] = field(default_factory=lambda: [24, 48, 48])
    batch_size: int = 4
    # Samples of one epoch; each is drawn anew in each epoch.
    samples_per_epoch: int = 800
    # Shares of samples at nodules at the fine scale, elsewhere at the fine scale, and at nodules at
    # the coarse scale; the rest lies elsewhere at the coarse scale. Patches have fine nodules only.
    fine_nodules: float = 0.45
    fine_lungs: float = 0.15
    coarse_nodules: float = 0.25
    # Places beside nodules that are cut from each scan at each scale; half of them at vessels.
    lung_crops: int = 6
    # share: a voxel's target is the share of readers who marked it. others: the mean over readers
    # of the consensus of the others, which human-normalised Dice is measured against.
    target: str = "share"
    # A sample's centre lies within this share of the patch from the nodule's.
    jitter: float = 0.2
    # Share of samples that are rotated and scaled between voxels; all are flipped and turned.
    affine: float = 0.5
    max_turn_degrees: float = 20.0
    max_scale: float = 1.2
    # Largest noise, a sample's own standard deviation, and shift of all values (HU).
    max_noise_hu: float = 40.0
    max_shift_hu: float = 30.0
    # Values are scaled by up to this share around air.
    max_gain: float = 0.08
    # Share of samples that are blurred as by a softer reconstruction kernel.
    blur: float = 0.2
    # Samples on which a validation is computed at most.
    max_validation: int = 160

    def __post_init__(self) -> None:
        """Check ranges."""
        if len(self.patch) != 3 or any(size < 8 or size % 2 for size in self.patch):
            raise ValueError(
                f"sampling.patch={self.patch} is not three even sizes of 8 or more; "
                "set sampling.patch"
            )
        if self.target not in ("share", "others"):
            raise ValueError(f"sampling.target={self.target!r} is not one of share, others")
        shares = ("fine_nodules", "fine_lungs", "coarse_nodules", "affine", "blur")
        _check("sampling", self, dict.fromkeys(shares, (0, 1)) | {"jitter": (0, 0.5)})
        if self.fine_nodules + self.fine_lungs + self.coarse_nodules > 1:
            raise ValueError(
                f"sampling.fine_nodules={self.fine_nodules}, fine_lungs={self.fine_lungs} and "
                f"coarse_nodules={self.coarse_nodules} add up to more than 1; lower one"
            )
        _check(
            "sampling",
            self,
            {
                "batch_size": (1, 4096),
                "samples_per_epoch": (1, 10**9),
                "lung_crops": (0, 1000),
                "max_turn_degrees": (0, 180),
                "max_scale": (1, 2),
                "max_noise_hu": (0, 500),
                "max_shift_hu": (0, 500),
                "max_gain": (0, 0.9),
                "max_validation": (1, 10**9),
            },
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The patch, as the tuple of three that it is."""
        depth, height, width = self.patch
        return depth, height, width


@dataclass
class LossConfig:
    """How much each part of the loss counts."""

    # 1 - soft Dice of each sample that holds a nodule.
    dice: float = 1.0
    # Cross-entropy of voxels against the readers' votes, over the nodule's size.
    votes: float = 0.3
    # Focal loss of the heat-map of centres.
    heat: float = 0.2
    # Cross-entropy of solid, part-solid, non-solid at the centres.
    texture: float = 0.1

    def __post_init__(self) -> None:
        """Check ranges."""
        _check("loss", self, dict.fromkeys(("dice", "votes", "heat", "texture"), (0, 1000)))
