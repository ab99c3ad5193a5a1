"""From what the network said of a crop to a finding on the scan's grid.

Dimensions: d, h, w of the crop on the scan's own grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kits.medical.findings import Finding
from kits.medical.geometry import Shape, Window
from kits.medical.infer.coarse import Candidate
from kits.medical.infer.crops import FineGrid, Patch
from kits.medical.infer.settings import HEAT_STRIDE, Settings

REACH_MM = 5.0  # from a candidate to its mask and to the fine heat-map's peak
MARGIN = 2  # voxels of probability kept around a mask


@dataclass(frozen=True)
class Look:
    """A finding, and whether its crop was wide enough for it."""

    finding: Finding
    is_cut: bool  # the mask comes closer to the crop's side than the halo
    mask_mm: float  # widest side of the mask's box


def read_patch(patch: Patch, candidate: Candidate, fine: FineGrid, settings: Settings) -> Look:
    """The nodule at a candidate: its connected mask, texture and score."""
    window = scan_window(patch.window, fine)
    shape = tuple(part.stop - part.start for part in window)
    first = -patch.window[0].start % fine.factor
    logits = patch.mask[first :: fine.factor][: shape[0], : shape[1], : shape[2]]
    probability = _sigmoid(logits)
    start = np.array([part.start for part in window])
    mask, others = _mask(probability, candidate.index - start, fine, settings)
    probability = np.where(others, np.float32(0), probability)
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    weights = np.where(mask[box], probability[box], 0).astype(np.float64)
    if not weights.any():
        weights = mask[box].astype(np.float64)
    centre = np.array(ndimage.center_of_mass(weights)) + [part.start for part in box] + start
    wide = tuple(
        slice(max(p.start - MARGIN, 0), min(p.stop + MARGIN, size))
        for p, size in zip(box, shape, strict=True)
    )
    finding = Finding(
        score=float(_sigmoid(np.float64(_score_logit(patch, candidate, fine, settings)))),
        centre_mm=tuple(float(v) for v in fine.volume.grid.to_patient(centre)),  # type: ignore[arg-type]
        window=tuple(
            slice(int(p.start + s), int(p.stop + s)) for p, s in zip(wide, start, strict=True)
        ),  # type: ignore[arg-type]
        mask=mask[wide],
        probability=np.round(probability[wide] * 255).astype(np.uint8),
        texture=_texture(patch, centre, fine),
    )
    sizes = np.array([part.stop - part.start for part in box]) * fine.volume.grid.spacing_mm
    return Look(finding, _is_cut(box, window, shape, fine, settings), float(sizes.max()))


def scan_window(window: Window, fine: FineGrid) -> Window:
    """The scan's voxels in a window of its fine grid."""
    factor = fine.factor
    slices = slice(-(-window[0].start // factor), -(-window[0].stop // factor))
    parts = [
        slice(part.start, min(part.stop, size))
        for part, size in zip((slices, *window[1:]), fine.volume.grid.shape, strict=True)
    ]
    return tuple(parts)  # type: ignore[return-value]


def _mask(
    probability: np.ndarray, centre: np.ndarray, fine: FineGrid, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """The connected part at a place, and what belongs to other parts.

    Where nothing near reaches the threshold, half of the highest probability near stands for it:
    a candidate always has a mask of a voxel or more.
    """
    steps = np.asarray(fine.volume.grid.spacing_mm)
    axes = [
        ((np.arange(size) - at) * step) ** 2
        for size, at, step in zip(probability.shape, centre, steps, strict=True)
    ]
    squared = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    near = squared <= max(REACH_MM**2, float(squared.min()))
    labels, _ = ndimage.label(probability >= settings.mask_threshold)
    inside = near & (labels > 0)
    if inside.any():
        # The part closest to the place, not the largest: that may be a neighbour's.
        at = np.argmin(np.where(inside, squared, np.inf))
        mask = labels == labels.flat[at]
    else:
        highest = np.argmax(np.where(near, probability, -1))
        parts, _ = ndimage.label(near & (probability >= probability.flat[highest] / 2))
        mask = parts == parts.flat[highest]
    return mask, (labels > 0) & ~mask


def _score_logit(patch: Patch, candidate: Candidate, fine: FineGrid, settings: Settings) -> float:
    """Both looks' logits, the fine one the highest near the candidate."""
    place = _heat_cell(patch, candidate.index, fine)
    steps = fine.spacing_mm * HEAT_STRIDE
    axes = [
        ((np.arange(size) - at) * step) ** 2
        for size, at, step in zip(patch.heat.shape, place, steps, strict=True)
    ]
    squared = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    near = squared <= max(REACH_MM**2, float(squared.min()))
    second = float(patch.heat[near].max())
    return (1 - settings.fine_share) * candidate.logit + settings.fine_share * second


def _texture(patch: Patch, centre: np.ndarray, fine: FineGrid) -> tuple[float, float, float]:
    place = np.round(_heat_cell(patch, centre, fine)).astype(int)
    cell = np.clip(place, 0, np.array(patch.heat.shape) - 1)
    logits = patch.texture[:, cell[0], cell[1], cell[2]].astype(np.float64)
    weights = np.exp(logits - logits.max())
    solid, part_solid, non_solid = (float(v) for v in weights / weights.sum())
    return solid, part_solid, non_solid


def _heat_cell(patch: Patch, index: np.ndarray, fine: FineGrid) -> np.ndarray:
    """A place of the scan as one of the patch's heat cells, with fractions."""
    voxel = np.asarray(index) * (fine.factor, 1, 1) - [part.start for part in patch.window]
    return np.asarray((voxel + 0.5) / HEAT_STRIDE - 0.5)


def _is_cut(box: Window, window: Window, shape: Shape, fine: FineGrid, settings: Settings) -> bool:
    """Whether a mask comes so close to a side inside the scan that more context may change it."""
    halos = (settings.crop_halo / fine.factor, settings.crop_halo, settings.crop_halo)
    for part, held, size, end, halo in zip(
        box, window, shape, fine.volume.grid.shape, halos, strict=True
    ):
        if held.start > 0 and part.start < halo:
            return True
        if held.stop < end and size - part.stop < halo:
            return True
    return False


def _sigmoid(values: np.ndarray) -> np.ndarray:
    # Beyond that a float32 exponential has no room.
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), values.dtype)
