"""What prediction hands to the report: nodules on the scan's own grid. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kits.medical.geometry import Grid, Triple, Window

TEXTURES = ("solid", "part_solid", "non_solid")  # in the order of every texture array


@dataclass(frozen=True)
class Finding:
    """One nodule, as far as the model sees one."""

    score: float  # (0, 1): the detector's, calibrated where the run was
    centre_mm: Triple  # (x, y, z) in the patient
    window: Window  # of the scan's voxels, around the mask
    mask: np.ndarray  # (d, h, w) bool, of the window
    probability: np.ndarray  # (d, h, w) uint8, 255 is certain, of the window
    texture: Triple  # probabilities in the order of TEXTURES


@dataclass(frozen=True)
class Findings:
    """All of one scan."""

    grid: Grid  # of the scan
    findings: tuple[Finding, ...]  # highest score first
    lung_window: Window
    lung_volume_ml: float
    seconds: Mapping[str, float] = field(default_factory=dict)  # step -> wall time
    notes: tuple[str, ...] = ()  # what a reader should know: the lungs were not found, ...
