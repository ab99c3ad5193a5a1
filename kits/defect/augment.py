"""A training sample from images: crops at native resolution, turned, scaled, in other light.

Own and small instead of ultralytics' transforms: those draw from global generators and from a
buffer of images seen before, so that a resumed run would not see the samples again; their colour
step takes three planes for colours, and template and difference are none; they resize whole images.

Dimensions: H, W of an image, S side of a sample, P planes, G boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from kits.defect.data.config import TilingConfig
from kits.defect.data.image_set import LabelledImage
from kits.defect.data.tiles import Window, cut
from kits.defect.planes import planes_of
from kits.defect.sampling_config import SamplingConfig

JITTER = 0.35  # share of the sample's side by which a chosen defect may lie off its middle


@dataclass(frozen=True)
class Sample:
    """One input with its boxes."""

    planes: np.ndarray  # (P, S, S) uint8
    boxes: np.ndarray  # (G, 4) float32 corners
    classes: np.ndarray  # (G,) int64


@dataclass(frozen=True)
class _Part:
    """A part of an image and of its template, with the boxes in it."""

    pixels: np.ndarray
    template: np.ndarray | None
    boxes: np.ndarray
    classes: np.ndarray


def training_sample(
    images: list[LabelledImage],
    cfg: SamplingConfig,
    tiling: TilingConfig,
    rng: np.random.Generator,
) -> Sample:
    """A varied sample: of the first image, or of all four for a mosaic."""
    if len(images) > 1:
        part = _mosaic(images, cfg, tiling, rng)
    else:
        part = _crop(images[0], (cfg.size_px, cfg.size_px), cfg, tiling, rng)
    if cfg.is_turned:
        part = _turned(part, rng)
    part = _relit(part, cfg, rng)
    return Sample(planes_of(part.pixels, part.template), part.boxes, part.classes)


def _crop(
    image: LabelledImage,
    size: tuple[int, int],
    cfg: SamplingConfig,
    tiling: TilingConfig,
    rng: np.random.Generator,
) -> _Part:
    """(height, width) of an image, at a random place and scale; filled up where it is smaller."""
    scale = 1.0
    if rng.random() < cfg.scaled:
        scale = (1 + cfg.scale) ** rng.uniform(-1, 1)
    sides = np.array(image.pixels.shape[:2])
    taken = np.minimum(np.maximum(np.round(np.array(size) / scale), 1), sides).astype(int)
    top, left = _place(image, taken, cfg, rng)
    tile = cut(image, Window(left, top, int(taken[1]), int(taken[0])), tiling).image
    template = tile.template
    if template is not None and cfg.template_shift_px:
        assert image.template is not None
        template = _shifted(image.template, (top, left), taken, cfg, rng)
    part = _Part(tile.pixels, template, tile.boxes_px, tile.classes)
    return _fitted(part, size, scale)


def _place(
    image: LabelledImage, taken: np.ndarray, cfg: SamplingConfig, rng: np.random.Generator
) -> tuple[int, int]:
    most = np.array(image.pixels.shape[:2]) - taken
    if len(image.boxes_px) and rng.random() < cfg.around_defect:
        box = image.boxes_px[rng.integers(len(image.boxes_px))]
        middle = np.array([box[1] + box[3], box[0] + box[2]]) / 2
        start = middle - taken / 2 + rng.uniform(-JITTER, JITTER, 2) * taken
        top, left = np.clip(np.round(start), 0, most).astype(int)
    else:
        top, left = rng.integers(0, most + 1)
    return int(top), int(left)


def _shifted(
    template: np.ndarray,
    start: tuple[int, int],
    taken: np.ndarray,
    cfg: SamplingConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """The template's window, moved as a registration may be wrong; edges are repeated."""
    shift = rng.integers(-cfg.template_shift_px, cfg.template_shift_px + 1, 2)
    rows, columns = (
        np.clip(np.arange(start[k], start[k] + taken[k]) + shift[k], 0, template.shape[k] - 1)
        for k in range(2)
    )
    return template[rows][:, columns]


def _fitted(part: _Part, size: tuple[int, int], scale: float) -> _Part:
    """Scaled, and filled up with the mean grey to the wanted size."""
    pixels, template, boxes = part.pixels, part.template, part.boxes
    if scale != 1.0:
        shape = np.minimum(np.round(np.array(pixels.shape[:2]) * scale), size).astype(int)
        factor = shape / pixels.shape[:2]
        pixels = _resized(pixels, shape)
        template = None if template is None else _resized(template, shape)
        boxes = boxes * factor[[1, 0, 1, 0]].astype(np.float32)
    if pixels.shape[:2] != size:
        pixels = _filled(pixels, size)
        template = None if template is None else _filled(template, size)
    return replace(part, pixels=pixels, template=template, boxes=boxes)


def _resized(pixels: np.ndarray, shape: np.ndarray) -> np.ndarray:
    height, width = (int(side) for side in shape)
    # The filter widens where the image shrinks, as a lens farther away would.
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _filled(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # As evaluation pads: zeros to the right and below.
    more = [(0, size[k] - pixels.shape[k]) for k in range(2)]
    return np.pad(pixels, [*more, *[(0, 0)] * (pixels.ndim - 2)])


def _mosaic(
    images: list[LabelledImage],
    cfg: SamplingConfig,
    tiling: TilingConfig,
    rng: np.random.Generator,
) -> _Part:
    """Four crops around a random point."""
    side = cfg.size_px
    row, column = rng.integers(side // 4, side - side // 4 + 1, 2)
    rows, columns = ((0, row), (row, side)), ((0, column), (column, side))
    first = images[0]
    shape = (side, side, *first.pixels.shape[2:])
    pixels = np.empty(shape, np.uint8)
    template = None if first.template is None else np.empty(shape, np.uint8)
    boxes, classes = [], []
    quarters = [(r, c) for r in rows for c in columns]
    for image, ((top, bottom), (left, right)) in zip(images, quarters, strict=True):
        part = _crop(image, (bottom - top, right - left), cfg, tiling, rng)
        pixels[top:bottom, left:right] = part.pixels
        if template is not None:
            template[top:bottom, left:right] = part.template
        boxes.append(part.boxes + np.array([left, top, left, top], np.float32))
        classes.append(part.classes)
    return _Part(pixels, template, np.concatenate(boxes), np.concatenate(classes))


def _turned(part: _Part, rng: np.random.Generator) -> _Part:
    """One of the eight ways to lay a square."""
    is_transposed, is_flipped, is_mirrored = rng.random(3) < 0.5
    side = part.pixels.shape[0]

    def turn(pixels: np.ndarray) -> np.ndarray:
        if is_transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if is_flipped else 1, :: -1 if is_mirrored else 1]

    boxes = part.boxes
    if is_transposed:
        boxes = boxes[:, [1, 0, 3, 2]]
    if is_flipped:
        boxes = np.stack([boxes[:, 0], side - boxes[:, 3], boxes[:, 2], side - boxes[:, 1]], 1)
    if is_mirrored:
        boxes = np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)
    template = None if part.template is None else turn(part.template)
    return replace(part, pixels=turn(part.pixels), template=template, boxes=boxes)


def _relit(part: _Part, cfg: SamplingConfig, rng: np.random.Generator) -> _Part:
    """Another exposure, the same for the template, and noise of its own for each."""
    gain = 1 + rng.uniform(-cfg.contrast, cfg.contrast)
    offset = 255 * rng.uniform(-cfg.brightness, cfg.brightness)
    sigma = rng.uniform(0, cfg.noise)
    if cfg.contrast == cfg.brightness == cfg.noise == 0:
        return part

    def relight(pixels: np.ndarray) -> np.ndarray:
        table = ((np.arange(256) - 127.5) * gain + 127.5 + offset).clip(0, 255)
        if not sigma:
            return table.round().astype(np.uint8)[pixels]
        values = table.astype(np.float32)[pixels]
        values += rng.standard_normal(pixels.shape, np.float32) * sigma
        return values.round().clip(0, 255).astype(np.uint8)

    template = None if part.template is None else relight(part.template)
    return replace(part, pixels=relight(part.pixels), template=template)
