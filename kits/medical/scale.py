"""At which spacing the network looks: once coarse over the lungs, then fine at each candidate.

Training samples, evaluation and prediction all ask here. No torch.
"""

from __future__ import annotations

from kits.medical.geometry import Triple

COARSE_MM = 1.4  # wanted for the heat-map; reached by whole factors of the scan's own spacing
THICKEST_MM = 1.5  # slices farther apart are interpolated for the crops ...
FINE_SLICE_MM = 1.25  # ... to about this


def coarse_factors(spacing_mm: Triple) -> tuple[int, int, int]:
    """Voxels averaged into one along each axis for the coarse pass."""
    depth, height, width = (max(1, round(COARSE_MM / step)) for step in spacing_mm)
    return depth, height, width


def fine_spacing(spacing_mm: Triple) -> Triple:
    """Spacing of the crops: the scan's own, but for thick slices."""
    depth, height, width = spacing_mm
    if depth > THICKEST_MM:
        depth /= round(depth / FINE_SLICE_MM)
    return depth, height, width
