"""The coarse look: block means of the lung box, tiles, one heat-map, candidates.

Dimensions: D, H, W of the scan; d, h, w of the coarse grid, whose voxel i is the mean of the
scan's voxels i*f to i*f + f-1; heat has a cell for two coarse voxels along each axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.blockmean import block_mean
from kits.medical.geometry import Shape, Volume, Window
from kits.medical.infer.lungs import Lungs
from kits.medical.infer.peaks import find_peaks
from kits.medical.infer.settings import AIR_HU, HEAT_STRIDE, Network, Progress, Settings
from kits.medical.infer.tiles import padded_shape, plan_tiles
from kits.medical.scale import coarse_factors

# Cells between two candidates at least; a heat-map's peak is wider than that.
SEPARATION_CELLS = 2.0


@dataclass(frozen=True)
class Candidate:
    """A place that may be a nodule's centre."""

    index: np.ndarray  # (3,) float64: voxel of the scan, with fractions
    logit: float  # of the coarse heat-map


@dataclass(frozen=True)
class Heat:
    """The coarse heat-map of a part of a scan."""

    values: np.ndarray  # (d, h, w) float32 logits; -inf where nothing was computed
    start: Shape  # of its first cell in the heat-map of the whole scan
    factors: Shape  # voxels of the scan in one coarse voxel

    def to_scan(self, cells: np.ndarray) -> np.ndarray:
        """(n, 3) places in `values` -> (n, 3) places among the scan's voxels."""
        whole = np.asarray(cells, np.float64) + self.start
        return (whole + 0.5) * HEAT_STRIDE * np.asarray(self.factors) - 0.5


def find_heat(
    volume: Volume, lungs: Lungs, network: Network, settings: Settings, progress: Progress
) -> Heat:
    """The heat-map of all tiles that touch the lungs' region."""
    factors = coarse_factors(volume.grid.spacing_mm)
    multiple = settings.multiple
    coarse = tuple(-(-n // f) for n, f in zip(volume.grid.shape, factors, strict=True))
    padded = padded_shape(coarse, multiple)  # type: ignore[arg-type]
    block = tuple(multiple * factor for factor in factors)
    counts = tuple(size // multiple for size in padded)
    wanted = lungs.blocks(block, counts)  # type: ignore[arg-type]
    tiles = plan_tiles(wanted, multiple, settings.halo, settings.max_tile_voxels)
    box = _around([tile.window for tile in tiles])
    image = coarse_image(volume, box, factors, threads=settings.threads)
    cores = _around([tile.core for tile in tiles])
    start = tuple(part.start // HEAT_STRIDE for part in cores)
    shape = tuple((part.stop - part.start) // HEAT_STRIDE for part in cores)
    values = np.full(shape, -np.inf, np.float32)
    # All tiles have one shape, and so one buffer.
    given = np.empty((1, 1, *(part.stop - part.start for part in tiles[0].window)), np.float32)
    # A network that can leave out the mask does.
    look = getattr(network, "heat", network)
    for number, tile in enumerate(tiles):
        np.copyto(given[0, 0], image[_shift(tile.window, [part.start for part in box])])
        found = look({"image": given})["heat"][0, 0]
        values[_cells(tile.core, cores)] = found[_cells(tile.core, tile.window)]
        progress("coarse", (number + 1) / len(tiles))
    return Heat(values, start, factors)  # type: ignore[arg-type]


def find_candidates(heat: Heat, lungs: Lungs, settings: Settings) -> tuple[Candidate, ...]:
    """The highest peaks in the lungs' region, highest first."""
    least = logit(settings.candidate_threshold)
    cells, logits = find_peaks(heat.values, least, SEPARATION_CELLS)
    places = heat.to_scan(cells)
    is_inside = lungs.holds(places) if len(places) else np.zeros(0, bool)
    found = zip(places[is_inside], logits[is_inside], strict=True)
    candidates = [Candidate(place, float(logit)) for place, logit in found]
    return tuple(candidates[: settings.max_candidates])


def logit(chance: float) -> float:
    """Of a chance from 0 to 1, both included."""
    with np.errstate(divide="ignore"):
        return float(np.log(chance) - np.log1p(-chance))


def coarse_image(volume: Volume, box: Window, factors: Shape, *, threads: int = 1) -> np.ndarray:
    """(d, h, w) float32 block means of a box of coarse voxels; air beyond the scan."""
    part = tuple(
        slice(held.start * factor, min(held.stop * factor, size))
        for held, factor, size in zip(box, factors, volume.grid.shape, strict=True)
    )
    found = block_mean(volume.voxels[part], factors, threads=threads)
    shape = tuple(held.stop - held.start for held in box)
    if found.shape == shape:
        return found
    missing = [(0, size - have) for size, have in zip(shape, found.shape, strict=True)]
    return np.pad(found, missing, constant_values=np.float32(AIR_HU))


def _around(windows: list[Window]) -> Window:
    parts = []
    for axis in range(3):
        starts = [window[axis].start for window in windows]
        parts.append(slice(min(starts), max(window[axis].stop for window in windows)))
    return tuple(parts)  # type: ignore[return-value]


def _shift(window: Window, by: list[int]) -> Window:
    parts = [slice(p.start - b, p.stop - b) for p, b in zip(window, by, strict=True)]
    return tuple(parts)  # type: ignore[return-value]


def _cells(core: Window, of: Window) -> Window:
    """The heat cells of a core, counted from the start of a window that holds it."""
    parts = [
        slice((c.start - o.start) // HEAT_STRIDE, (c.stop - o.start) // HEAT_STRIDE)
        for c, o in zip(core, of, strict=True)
    ]
    return tuple(parts)  # type: ignore[return-value]
