"""How a narrow network learns from a wide one, unless told otherwise; no torch."""

from __future__ import annotations

from core.compress.config import DistillConfig, OutputLossConfig

# Strides at which both the kit's networks and the published ones look.
STRIDES = (8, 16)
# A mean over all cells of all classes, of which a few in ten thousand hold a defect.
HEAT_WEIGHT = 300.0
BOX_WEIGHT = 0.05  # its numbers are in cells


def detector_distillation() -> DistillConfig:
    """What the teacher says of classes in each cell, and of boxes where it sees a defect."""
    outputs = {}
    for stride in STRIDES:
        outputs[f"heat_{stride}"] = OutputLossConfig(weight=HEAT_WEIGHT)
        outputs[f"box_{stride}"] = OutputLossConfig(
            loss="mse", weight=BOX_WEIGHT, where=f"seen_{stride}"
        )
    return DistillConfig(outputs=outputs)
