"""The fine look: crops around places, on the scan's own grid or between its slices.

Dimensions: D, H, W of the scan. Its fine grid is the same but for thick slices, between which
`factor - 1` more are interpolated: fine slice i lies at slice i / factor.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kits.medical.geometry import Shape, Volume, Window
from kits.medical.infer.settings import AIR_HU, Network, Settings
from kits.medical.infer.tiles import padded_shape
from kits.medical.scale import fine_spacing


@dataclass(frozen=True)
class FineGrid:
    """A scan at the spacing of the crops, made where it is looked at."""

    volume: Volume
    multiple: int

    @property
    def factor(self) -> int:
        """Fine slices for one of the scan's."""
        spacing_mm = self.volume.grid.spacing_mm
        return max(1, round(spacing_mm[0] / fine_spacing(spacing_mm)[0]))

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) of the fine grid."""
        return np.asarray(self.volume.grid.spacing_mm) / (self.factor, 1, 1)

    @property
    def shape(self) -> Shape:
        """Of the whole scan, with air up to the network's multiple."""
        depth, height, width = self.volume.grid.shape
        return padded_shape(((depth - 1) * self.factor + 1, height, width), self.multiple)

    def window(self, index: np.ndarray, core_mm: float, halo: int) -> Window:
        """Fine voxels around a place of the scan: a core, and a halo on each side of it."""
        multiple = self.multiple
        parts = []
        for centre, step, end in zip(
            np.asarray(index) * (self.factor, 1, 1), self.spacing_mm, self.shape, strict=True
        ):
            # A start moves by up to half a multiple, to where the whole scan's pooling has one.
            least = core_mm / step + 2 * halo + multiple
            size = min(int(-(-least // multiple)) * multiple, end)
            start = round((centre - size / 2) / multiple) * multiple
            start = min(max(start, 0), end - size)
            parts.append(slice(start, start + size))
        return tuple(parts)  # type: ignore[return-value]

    def cut(self, window: Window, out: np.ndarray) -> None:
        """Write a window's voxels into (d, h, w) float32; air beyond the scan."""
        voxels, factor = self.volume.voxels, self.factor
        depth, height, width = voxels.shape
        rows, columns = (
            slice(part.start, min(part.stop, size))
            for part, size in zip(window[1:], (height, width), strict=True)
        )
        inner = out[:, : rows.stop - rows.start, : columns.stop - columns.start]
        if inner.shape != out.shape:
            out.fill(AIR_HU)
        for at, fine in enumerate(range(window[0].start, window[0].stop)):
            low, between = divmod(fine, factor)
            if fine > (depth - 1) * factor:
                inner[at] = AIR_HU
                continue
            inner[at] = voxels[low, rows, columns]
            if between:
                share = np.float32(between / factor)
                inner[at] += share * (voxels[low + 1, rows, columns] - inner[at])


@dataclass(frozen=True)
class Patch:
    """What the network said of a window of the fine grid; logits."""

    window: Window
    mask: np.ndarray  # (d, h, w) float32
    heat: np.ndarray  # (d/2, h/2, w/2) float32
    texture: np.ndarray  # (3, d/2, h/2, w/2) float32


def look(
    network: Network, fine: FineGrid, windows: Sequence[Window], settings: Settings
) -> Iterator[Patch]:
    """Patches of windows, in their order; neighbours of one shape go to the network together."""
    for shape, same in itertools.groupby(windows, _shape):
        run = list(same)
        for start in range(0, len(run), settings.batch):
            part = run[start : start + settings.batch]
            given = np.empty((len(part), 1, *shape), np.float32)
            for image, window in zip(given, part, strict=True):
                fine.cut(window, image[0])
            found = network({"image": given})
            for at, window in enumerate(part):
                yield Patch(
                    window, found["mask"][at, 0], found["heat"][at, 0], found["texture"][at]
                )


def _shape(window: Window) -> Shape:
    depth, height, width = (part.stop - part.start for part in window)
    return depth, height, width
