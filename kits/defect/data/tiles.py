"""Tiles of images at native resolution, and which of them an epoch sees.

A box that a tile's border cuts stays a box where enough of it is inside. Where too little is, it
can teach a detector neither that there is a defect nor that there is none: it is painted over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from core.kit import Split
from kits.defect.data.config import TilingConfig
from kits.defect.data.image_set import ImageSet, LabelledImage

# Around a fragment that is painted over, from where the paint's grey is taken.
FRAME_PX = 3


class Window(NamedTuple):
    """Where a tile lies in its image."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Tile:
    """A tile as an image of its own, and what was painted over in it."""

    image: LabelledImage
    window: Window
    ignored_px: np.ndarray  # (M, 4) float32 boxes without a usable truth


def windows(width: int, height: int, cfg: TilingConfig) -> list[Window]:
    """Tiles that cover an image, evenly spread; every one lies inside of it.

    Args:
        width: of the image.
        height: of the image.
        cfg: size of a tile and the least overlap of neighbours.
    """
    if cfg.size_px is None:
        return [Window(0, 0, width, height)]
    size = cfg.size_px
    return [
        Window(x, y, min(size, width), min(size, height))
        for y in _starts(height, size, cfg.overlap_px)
        for x in _starts(width, size, cfg.overlap_px)
    ]


def cut(image: LabelledImage, window: Window, cfg: TilingConfig) -> Tile:
    """One tile of an image with its boxes.

    Lengths and widths of defects that are cut are those of the part inside where they are lines,
    and not known (nan) elsewhere.
    """
    rows = slice(window.y, window.y + window.height)
    columns = slice(window.x, window.x + window.width)
    corner = np.array([window.x, window.y] * 2, np.float32)
    limit = np.array([window.width, window.height] * 2, np.float32)
    moved = image.boxes_px - corner
    boxes = np.clip(moved, 0, limit)
    inside = _area(boxes) / np.maximum(_area(image.boxes_px), 1e-9)
    segments = None
    seen_px = np.full(len(boxes), np.nan)
    share = np.ones(len(boxes))
    if image.segments_px is not None:
        segments = image.segments_px.copy()
        for number, segment in enumerate(image.segments_px):
            if np.isnan(segment).any():
                continue
            local = segment - corner[:2]
            segments[number], share[number] = _clipped(local, limit[:2])
            seen_px[number] = share[number] * math.dist(*segment)
            if 0 < share[number] < 1:
                boxes[number] = _box_along(segments[number], local, moved[number], boxes[number])
    is_line = ~np.isnan(seen_px)
    is_whole = np.all(boxes == moved, axis=1)
    kept = np.where(is_line, seen_px >= cfg.least_length_px, inside >= cfg.least_inside)
    kept = (kept | is_whole) & (inside > 0)
    ignored = boxes[~kept & (inside > 0)]
    pixels = image.pixels[rows, columns].copy()
    template = None if image.template is None else image.template[rows, columns].copy()
    for box in ignored:
        _paint(pixels, box, boxes[kept], template)
    lengths = _cut_sizes(image.lengths_mm, kept, is_whole, np.where(is_line, share, np.nan))
    widths = _cut_sizes(image.widths_mm, kept, is_whole, np.where(is_line, 1.0, np.nan))
    part = replace(
        image,
        name=tile_name(image.name, window),
        pixels=pixels,
        boxes_px=boxes[kept],
        classes=image.classes[kept],
        template=template,
        lengths_mm=lengths,
        widths_mm=widths,
        segments_px=None if segments is None else segments[kept],
        contrasts_to_noise=None
        if image.contrasts_to_noise is None
        else image.contrasts_to_noise[kept],
    )
    return Tile(part, window, ignored)


def tile_name(name: str, window: Window) -> str:
    """The name of a tile: its image, its corner and its size."""
    return f"{name}@{window.x},{window.y},{window.width},{window.height}"


class TiledImages:
    """An image set whose images are the tiles of another one."""

    def __init__(self, images: ImageSet, cfg: TilingConfig) -> None:
        self.images, self.cfg = images, cfg
        self.name, self.class_names = images.name, images.class_names
        self.has_template = images.has_template
        self.fingerprint = f"{images.fingerprint}-{cfg.size_px}-{cfg.overlap_px}"
        self._names: dict[Split, list[str]] = {}
        self._last: LabelledImage | None = None

    def names(self, split: Split) -> list[str]:
        """Tiles of a split, image after image; the first call looks at the size of each image."""
        if split not in self._names:
            self._names[split] = [
                tile_name(name, window)
                for name in self.images.names(split)
                for window in windows(*self._size(name), self.cfg)
            ]
        return self._names[split]

    def load(self, name: str) -> LabelledImage:
        """One tile; the image before it is kept, so that tiles in order read each image once."""
        return self.tile(name).image

    def tile(self, name: str) -> Tile:
        """One tile with what is painted over in it."""
        image, _, place = name.rpartition("@")
        window = Window(*(int(number) for number in place.split(",")))
        return cut(self._image(image), window, self.cfg)

    def _size(self, name: str) -> tuple[int, int]:
        height, width = self._image(name).pixels.shape[:2]
        return width, height

    def _image(self, name: str) -> LabelledImage:
        if self._last is None or self._last.name != name:
            self._last = self.images.load(name)
        return self._last


def draw_epoch(
    classes: Sequence[np.ndarray], num_classes: int, cfg: TilingConfig, seed: int, *, count: int
) -> np.ndarray:
    """Which tiles an epoch sees, in order.

    A tile is drawn as often as its rarest class asks for; clean tiles make up a share of their own.

    Args:
        classes: of each tile, its boxes' classes.
        num_classes: how many there are.
        cfg: balance 0 draws all tiles with defects alike, 1 each class equally often.
        seed: of this epoch; the same seed draws the same tiles.
        count: tiles of the epoch.
    Returns:
        (count,) int64 indices into `classes`.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros(num_classes)
    for each in classes:
        counts[np.unique(each)] += 1
    rarity = np.power(np.maximum(counts, 1), -float(cfg.balance))
    weights = np.array([rarity[each].max() if len(each) else 0.0 for each in classes])
    is_clean = np.array([len(each) == 0 for each in classes])
    share = float(is_clean.mean()) if cfg.clean is None else cfg.clean
    if not is_clean.any() or is_clean.all():
        share = float(is_clean.any())
    num_clean = round(share * count)
    clean = _drawn(np.flatnonzero(is_clean), np.ones(int(is_clean.sum())), num_clean, rng)
    marked = np.flatnonzero(~is_clean)
    found = _drawn(marked, weights[marked], count - num_clean, rng)
    order: np.ndarray = rng.permutation(np.concatenate([clean, found]))
    return order


def _drawn(
    tiles: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """As often as expected, up or down to a whole number: no tile is missed by bad luck."""
    if not count:
        return np.zeros(0, np.int64)
    places = np.arange(count) + rng.random()
    order = rng.permutation(len(tiles))
    ends = np.cumsum((weights / weights.sum())[order]) * count
    chosen = np.searchsorted(ends, np.minimum(places, count * (1 - 1e-12)), side="right")
    return tiles[order][np.minimum(chosen, len(tiles) - 1)].astype(np.int64)


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    count = math.ceil((length - overlap) / (size - overlap))
    return [round(number * (length - size) / (count - 1)) for number in range(count)]


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def _clipped(segment: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, float]:
    """The part of a segment in a tile, and its share of the whole; nan and 0 where there is none.

    Source: Liang and Barsky's clipping.
    """
    start, way = segment[0], segment[1] - segment[0]
    low, high = 0.0, 1.0
    for axis in (0, 1):
        if abs(way[axis]) < 1e-9:
            if not 0 <= start[axis] <= limit[axis]:
                return np.full((2, 2), np.nan, np.float32), 0.0
            continue
        ends = sorted((-start[axis] / way[axis], (limit[axis] - start[axis]) / way[axis]))
        low, high = max(low, float(ends[0])), min(high, float(ends[1]))
    if low >= high:
        return np.full((2, 2), np.nan, np.float32), 0.0
    return np.stack([start + low * way, start + high * way]).astype(np.float32), high - low


def _cut_sizes(
    sizes: np.ndarray | None, kept: np.ndarray, is_whole: np.ndarray, share: np.ndarray
) -> np.ndarray | None:
    if sizes is None:
        return None
    return np.where(is_whole, sizes, sizes * share)[kept].astype(np.float32)


def _box_along(
    seen: np.ndarray, segment: np.ndarray, box: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """The box of the visible part of a line, as much wider than it as the whole box is."""
    low = seen.min(0) - np.maximum(segment.min(0) - box[:2], 0)
    high = seen.max(0) + np.maximum(box[2:] - segment.max(0), 0)
    tight = np.concatenate([np.maximum(low, inside[:2]), np.minimum(high, inside[2:])])
    return tight.astype(np.float32)


def _paint(
    pixels: np.ndarray, box: np.ndarray, spared: np.ndarray, template: np.ndarray | None
) -> None:
    """Fill a box from the template, or with the median around it; boxes that count are spared."""
    height, width = pixels.shape[:2]
    x1, y1 = (max(0, math.floor(side)) for side in box[:2])
    x2, y2 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    rows = slice(max(0, y1 - FRAME_PX), min(height, y2 + FRAME_PX))
    columns = slice(max(0, x1 - FRAME_PX), min(width, x2 + FRAME_PX))
    around = np.ones(pixels.shape[:2], bool)[rows, columns]
    around[y1 - rows.start : y2 - rows.start, x1 - columns.start : x2 - columns.start] = False
    frame = pixels[rows, columns][around]
    grey = np.median(frame if len(frame) else pixels.reshape(-1, *pixels.shape[2:]), axis=0)
    free = np.ones((y2 - y1, x2 - x1), bool)
    for a1, b1, a2, b2 in spared:
        free[
            max(0, math.floor(b1) - y1) : max(0, math.ceil(b2) - y1),
            max(0, math.floor(a1) - x1) : max(0, math.ceil(a2) - x1),
        ] = False
    pixels[y1:y2, x1:x2][free] = (
        grey.astype(np.uint8) if template is None else template[y1:y2, x1:x2][free]
    )
