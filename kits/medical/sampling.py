"""From cases to crops at both scales, ready to draw training samples from; patches as a whole.

Dimensions: D, H, W of a scan; d, h, w of a crop. A crop is wider than a sample, so that samples can
be shifted, turned and scaled in it. At the fine scale slice i lies at the scan's slice i / factor;
at the coarse scale a voxel is the mean of a block, as `scale.py` says. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from kernels.blockmean import block_mean
from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.votes import count, readers_of
from kits.medical.geometry import Shape, Triple, Window
from kits.medical.sampling_config import SamplingConfig
from kits.medical.scale import coarse_factors, fine_spacing

Network = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Kind = Literal["fine_nodules", "fine_lungs", "coarse_nodules", "coarse_lungs"]
KINDS: tuple[Kind, ...] = ("fine_nodules", "fine_lungs", "coarse_nodules", "coarse_lungs")

AIR_HU = -1000
VESSEL_HU = -600  # above this a coarse voxel inside the lungs holds more than air
FULL, UNKNOWN = 254, 255  # of a crop's votes: every reader; a voxel that does not count
# Crops reach beyond samples by so many voxels on each side, for shifts, turns and scales.
MARGIN = (8, 14, 14)
# Texture ratings run from 1, non-solid, to 5, solid.
NON_SOLID_BELOW, SOLID_ABOVE = 2.5, 3.5


@dataclass(frozen=True)
class Crop:
    """A part of a scan at one scale with all that is known of it."""

    kind: Kind
    case: str
    nodule: str  # its name, where the crop is around one
    image: np.ndarray  # (d, h, w) int16, HU
    votes: np.ndarray  # (d, h, w) uint8: 0 nobody, FULL everybody, UNKNOWN does not count
    spacing_mm: Triple
    # Of k nodules near or in the crop:
    centres: np.ndarray  # (k, 3) float32 indices in the crop
    diameters_mm: np.ndarray  # (k,) float32
    textures: np.ndarray  # (k,) int8 in the order of TEXTURES; -1 where nobody said
    is_certain: np.ndarray  # (k,) bool: half of all readers or more marked it
    is_patch: bool  # nothing may be counted as absent


@dataclass(frozen=True)
class View:
    """A whole case at one scale; its slices are interpolated where they are looked at."""

    voxels: np.ndarray  # (D, H, W) int16
    votes: np.ndarray  # (D, H, W) uint8
    factor: int  # slices of the view for one of the arrays
    spacing_mm: Triple
    centres: np.ndarray  # (k, 3) of the nodules, in the view

    @property
    def shape(self) -> Shape:
        """Of the view."""
        depth, height, width = self.voxels.shape
        return (depth - 1) * self.factor + 1, height, width


def texture_class(rating: float | None) -> int:
    """A median rating as an index into TEXTURES, -1 for none."""
    if rating is None or not np.isfinite(rating):
        return -1
    return 2 if rating < NON_SOLID_BELOW else 0 if rating > SOLID_ABOVE else 1


def soft_votes(nodule: TrueNodule, target: str) -> np.ndarray:
    """(d, h, w) float32: what a voxel of a nodule's window is trained towards.

    Args:
        nodule: with the votes of those who marked it.
        target: "share" of the readers, or the mean over them of the consensus of the "others" (with
            one reader there are none: his own mask).
    """
    readers = readers_of(nodule.votes)
    number = max(1, len(readers))
    votes = np.arange(number + 1)
    if target == "share" or number == 1:
        table = votes / number
    else:
        # Of a voter's colleagues votes - 1 agree, of the others' all; half of them is a consensus.
        seen = [(votes - 1, votes), (votes, number - votes)]
        table = sum(
            np.where((2 * agreeing >= number - 1) & (agreeing > 0), share / number, 0.0)
            for agreeing, share in seen
        )
    found: np.ndarray = np.asarray(table, np.float32)[count(nodule.votes, readers)]
    return found


def centre_of(nodule: TrueNodule) -> np.ndarray:
    """(3,) voxel of the scan, with fractions: where the readers' votes have their middle."""
    weights = count(nodule.votes, readers_of(nodule.votes)).astype(np.float64)
    inside = np.asarray(ndimage.center_of_mass(weights))
    return inside + [part.start for part in nodule.window]


def fine_factor(spacing_mm: Triple) -> int:
    """Slices at the fine scale for one of the scan's."""
    return max(1, round(spacing_mm[0] / fine_spacing(spacing_mm)[0]))


def view_of(case: Case, scale: str, target: str, max_readers: int) -> View:
    """A case at the "fine" or "coarse" scale."""
    grid, voxels = case.volume.grid, case.volume.voxels
    votes = np.zeros(voxels.shape, np.uint8)
    for nodule in case.nodules:
        part = votes[nodule.window]
        if is_certain(nodule, max_readers):
            new = np.round(soft_votes(nodule, target) * FULL).astype(np.uint8)
        else:
            new = np.where(nodule.votes > 0, UNKNOWN, 0).astype(np.uint8)
        np.maximum(part, new, out=part)
    centres = np.array([centre_of(nodule) for nodule in case.nodules]).reshape(-1, 3)
    spacing_mm = grid.spacing_mm
    if scale == "fine":
        factor = fine_factor(spacing_mm)
        step = spacing_mm[0] / factor
        return View(voxels, votes, factor, (step, *spacing_mm[1:]), centres * (factor, 1, 1))
    factors = coarse_factors(spacing_mm)
    image = np.round(block_mean(voxels, factors)).astype(np.int16)
    unknown = block_mean((votes == UNKNOWN).astype(np.int16), factors) > 0
    known = np.where(votes == UNKNOWN, 0, votes).astype(np.int16)
    shares = np.round(block_mean(known, factors)).astype(np.uint8)
    spacing = tuple(step * factor for step, factor in zip(spacing_mm, factors, strict=True))
    return View(
        image,
        np.where(unknown, np.uint8(UNKNOWN), shares),
        1,
        spacing,  # type: ignore[arg-type]
        (centres + 0.5) / factors - 0.5,
    )


def is_certain(nodule: TrueNodule, max_readers: int) -> bool:
    """Whether half of a source's readers or more marked it; else it is neither there nor not."""
    return 2 * nodule.num_readers >= max_readers


def cut(view: View, window: Window, *, is_edge: bool) -> tuple[np.ndarray, np.ndarray]:
    """A window of a view, which may reach beyond it.

    Args:
        view: of a case.
        window: in the view's voxels.
        is_edge: beyond the view the image repeats its edge, and its votes do not count; else, and
            in a window that does not touch the view, there is air without a nodule.
    Returns:
        (d, h, w) float32 HU, and (d, h, w) uint8 votes.
    """
    inside = [
        slice(max(part.start, 0), min(part.stop, size))
        for part, size in zip(window, view.shape, strict=True)
    ]
    if any(part.start >= part.stop for part in inside):
        shape = tuple(part.stop - part.start for part in window)
        return np.full(shape, AIR_HU, np.float32), np.zeros(shape, np.uint8)
    below, above, share = _slices(view.voxels, inside, view.factor)
    image = below + share * (above.astype(np.float32) - below)
    below, above, share = _slices(view.votes, inside, view.factor)
    votes = np.round(below + share * (above.astype(np.float32) - below)).astype(np.uint8)
    votes[(below == UNKNOWN) | ((above == UNKNOWN) & (share > 0))] = UNKNOWN
    missing = [
        (max(0, have.start - part.start), max(0, part.stop - have.stop))
        for part, have in zip(window, inside, strict=True)
    ]
    if is_edge:
        image = np.pad(image, missing, mode="edge")
        votes = np.pad(votes, missing, constant_values=UNKNOWN)
    else:
        image = np.pad(image, missing, constant_values=AIR_HU)
        votes = np.pad(votes, missing)
    return image, votes


def end_in_air(image: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """A part of a patch whose slices end in air, so that a network sees where they end.

    Args:
        image: (d, h, w) HU.
        votes: (d, h, w) uint8; beyond the patch's slices all of them are UNKNOWN.
    """
    is_beyond = (votes == UNKNOWN).all((1, 2), keepdims=True)
    return np.where(is_beyond, np.float32(AIR_HU), image)


def _slices(
    array: np.ndarray, inside: Sequence[slice], factor: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(d, h, w) the slices below and above each fine one, and (d, 1, 1) the share of the upper."""
    place = np.arange(inside[0].start, inside[0].stop)
    low, rest = np.divmod(place, factor)
    part = array[:, inside[1], inside[2]]
    share = (rest / np.float32(factor)).astype(np.float32)[:, None, None]
    return part[low], part[np.minimum(low + 1, len(array) - 1)], share


def crops_of(
    case: Case, cfg: SamplingConfig, max_readers: int, rng: np.random.Generator
) -> Iterator[Crop]:
    """All crops of a case: around each nodule, and elsewhere in the lungs; fine, then coarse."""
    scales = ("fine",) if case.extent == "patch" else ("fine", "coarse")
    shape = crop_shape(cfg)
    for scale in scales:
        view = view_of(case, scale, cfg.target, max_readers)
        at_nodules: Kind = "fine_nodules" if scale == "fine" else "coarse_nodules"
        for nodule, centre in zip(case.nodules, view.centres, strict=True):
            if is_certain(nodule, max_readers):
                yield _crop(case, view, centre, shape, (at_nodules, nodule.name), max_readers)
        if case.extent == "scan":
            elsewhere: Kind = "fine_lungs" if scale == "fine" else "coarse_lungs"
            for centre in _lung_places(case, view, cfg, rng):
                yield _crop(case, view, centre, shape, (elsewhere, ""), max_readers)


def crop_shape(cfg: SamplingConfig) -> Shape:
    """Voxels of a stored crop."""
    depth, height, width = (size + 2 * more for size, more in zip(cfg.patch, MARGIN, strict=True))
    return depth, height, width


def _crop(
    case: Case,
    view: View,
    centre: np.ndarray,
    shape: Shape,
    what: tuple[Kind, str],
    max_readers: int,
) -> Crop:
    start = np.round(centre - (np.array(shape) - 1) / 2).astype(np.int64)
    window = tuple(slice(int(a), int(a + n)) for a, n in zip(start, shape, strict=True))
    is_patch = case.extent == "patch"
    image, votes = cut(view, window, is_edge=is_patch)  # type: ignore[arg-type]
    near = [
        k
        for k, place in enumerate(view.centres)
        if np.all(place > start - shape) and np.all(place < start + 2 * np.array(shape))
    ]
    nodules = [case.nodules[k] for k in near]
    return Crop(
        kind=what[0],
        case=case.name,
        nodule=what[1],
        image=np.round(image).astype(np.int16),
        votes=votes,
        spacing_mm=view.spacing_mm,
        centres=(view.centres[near] - start).astype(np.float32).reshape(-1, 3),
        diameters_mm=np.array([nodule.diameter_mm for nodule in nodules], np.float32),
        textures=np.array([texture_class(nodule.texture) for nodule in nodules], np.int8),
        is_certain=np.array([is_certain(n, max_readers) for n in nodules], bool),
        is_patch=is_patch,
    )


def _lung_places(
    case: Case, view: View, cfg: SamplingConfig, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Places in the lungs, in the view's voxels: at vessels and anywhere, in turn."""
    factors = coarse_factors(case.volume.grid.spacing_mm)
    lungs = _lungs(case)
    inside = block_mean(lungs.astype(np.int16), factors) > 0.5
    dense = block_mean(case.volume.voxels, factors) > VESSEL_HU
    choices = [np.flatnonzero(where) for where in (inside & dense, inside)]
    scale = np.array(case.volume.grid.spacing_mm) / view.spacing_mm
    # The centre of voxel 0 lies half a voxel inside both grids, but for interpolated slices.
    shift = np.where([view.factor > 1, False, False], 0.0, 0.5)
    # A sample at the scan's end would be half of air.
    half = np.minimum(np.array(cfg.patch) / 2, np.array(view.shape) / 2)
    for turn in range(cfg.lung_crops):
        cells = choices[turn % 2]
        if len(cells):
            cell = np.unravel_index(cells[rng.integers(len(cells))], inside.shape)
            voxel = (np.array(cell) + 0.5) * factors - 0.5
            yield np.clip((voxel + shift) * scale - shift, half, view.shape - half)


def _lungs(case: Case) -> np.ndarray:
    """(D, H, W) bool: the source's lungs, else what looks like them."""
    if case.lungs is not None:
        return case.lungs
    from kits.medical.infer.lungs import find_lungs

    found = find_lungs(case.volume)
    whole = found.region
    for axis, factor in enumerate(found.factors):
        whole = whole.repeat(factor, axis)
    depth, height, width = case.volume.voxels.shape
    return whole[:depth, :height, :width]
