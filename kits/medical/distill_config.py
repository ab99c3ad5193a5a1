"""How the kit's student learns from its teacher, unless told otherwise; no torch."""

from __future__ import annotations

from core.compress.config import BoundaryConfig, DistillConfig, OutputLossConfig

CONTROLS = ("steps", "seconds")


def nodule_distillation() -> DistillConfig:
    """What the teacher says of voxels at edges, of centres, and of textures where centres are.

    Nodules fill about a hundredth of a sample: what is empty counts little, edges and small ones
    more.
    """
    edges = BoundaryConfig(
        strength=1.0, background=0.02, size_power=0.5, max_weight=4.0, width_voxels=2.0
    )
    # A centre's peak is some cells wide.
    peaks = BoundaryConfig(
        strength=1.0, background=0.02, size_power=0.0, threshold=0.2, width_voxels=2.0
    )
    return DistillConfig(
        outputs={
            "mask": OutputLossConfig(weight=1.0, dice_weight=0.5, boundary=edges),
            "heat": OutputLossConfig(weight=1.0, boundary=peaks),
            "texture": OutputLossConfig(loss="kl", weight=0.1, where="heat"),
        }
    )
