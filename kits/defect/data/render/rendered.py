"""`data=rendered`: metal parts under a camera, with their damage known in millimetres."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import fft, ndimage

from core.kit import Split
from kits.defect.data.config import DEFECTS, RenderedData
from kits.defect.data.image_set import SPLITS, LabelledImage
from kits.defect.data.render import blobs, scratch
from kits.defect.data.render.camera import blur, blur_window, expose, noise_of
from kits.defect.data.render.damage import Damage
from kits.defect.data.render.layout import Part, place_features
from kits.defect.data.render.product import Product, draw_product
from kits.defect.data.render.scene import Scene
from kits.defect.data.render.texture import synthesise
from kits.defect.mtf import KERNEL_RADIUS_PX

# Around the image, since a discrete Fourier transform wraps around.
MARGIN_PX = 16
# A defect's box reaches this far beyond its outline: what lens and pixels spread.
SPREAD_PX = 1.0
# Places that are tried for a defect until one is free.
TRIES = 30
# Of a product's parts: how far the fixture is off, and how much the light differs (rms).
FIXTURE_PX, LAMP = 1.0, 0.01


class RenderedImages:
    """Fills `ImageSet`; the same settings and name give the same pixels."""

    name = "rendered"
    class_names = DEFECTS

    def __init__(self, cfg: RenderedData) -> None:
        self.cfg = cfg
        self.has_template = cfg.template
        text = json.dumps([_code_version(), asdict(cfg)], sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def names(self, split: Split) -> list[str]:
        """Images of a split, in order."""
        return [f"{split}-{number:06d}" for number in range(getattr(self.cfg, f"num_{split}"))]

    def load(self, name: str) -> LabelledImage:
        """Render one image.

        Raises:
            ValueError: there is no image of this name.
        """
        split, _, text = name.rpartition("-")
        if split not in SPLITS or not text.isdigit() or int(text) >= getattr(
            self.cfg, f"num_{split}"
        ):  # fmt: skip
            raise ValueError(f"name={name!r} is no rendered image; see names(split)")
        return render(self.cfg, name, SPLITS.index(split), int(text))


def render(cfg: RenderedData, name: str, stream: int, number: int) -> LabelledImage:
    """One image of a part, with what is wrong with it.

    Args:
        cfg: what is rendered.
        name: of the image.
        stream: with `number`, another pair is another part.
        number: see there.
    """
    rng = np.random.default_rng([cfg.seed, stream, number])
    product = _product(cfg, stream, number)
    scene, part = _bare_part(cfg, product, rng)
    damages = _damages(cfg, scene, part, rng)
    shift = rng.uniform(-1, 1, 2) * cfg.template_shift_px
    shifts = ((0.0, 0.0), (float(shift[0]), float(shift[1])))
    clean, *moved = blur(cfg.optics, part.brightness, shifts[: 1 + cfg.template])
    image = clean.copy()
    contrasts = [
        _add(cfg, image, clean, damage, part.brightness[damage.window]) for damage in damages
    ]
    inner = (
        slice(MARGIN_PX, MARGIN_PX + cfg.height_px),
        slice(MARGIN_PX, MARGIN_PX + cfg.width_px),
    )
    pixels = expose(cfg.optics, image[inner], rng)
    template = None
    if cfg.template:
        light = 1 + rng.uniform(-1, 1) * cfg.template_light
        template = expose(cfg.optics, moved[0][inner] * np.float32(light), rng)
    return _labelled(cfg, name, pixels, template, damages, contrasts)


def _product(cfg: RenderedData, stream: int, number: int) -> Product:
    key = [cfg.seed, 7, cfg.product] if cfg.product is not None else [cfg.seed, 8, stream, number]
    kind = cfg.surfaces[(cfg.product if cfg.product is not None else number) % len(cfg.surfaces)]
    return draw_product(kind, cfg.optics, np.random.default_rng(key), layout=cfg.layout)


def _bare_part(cfg: RenderedData, product: Product, rng: np.random.Generator) -> tuple[Scene, Part]:
    optics = cfg.optics
    shape = tuple(
        fft.next_fast_len(size + 2 * MARGIN_PX, real=True) for size in (cfg.height_px, cfg.width_px)
    )
    free = (optics.sensor_height_px - cfg.height_px, optics.sensor_width_px - cfg.width_px)
    corner = tuple(int(rng.integers(0, room + 1)) - MARGIN_PX for room in free)
    if cfg.product is not None:
        # The same place of the same product, part after part.
        place = np.random.default_rng([cfg.seed, 9, cfg.product])
        corner = tuple(int(place.integers(0, room + 1)) - MARGIN_PX for room in free)
    fixture = rng.normal(0, FIXTURE_PX, 2) if cfg.product is not None else (0.0, 0.0)
    slopes, grain = synthesise(product.surface, shape, optics.mm_per_px, rng)
    scene = Scene(product, optics, corner, slopes, grain)
    part = place_features(scene, (float(fixture[0]), float(fixture[1])))
    part.brightness[...] *= np.float32(1 + rng.normal(0, LAMP))
    return scene, part


def _damages(cfg: RenderedData, scene: Scene, part: Part, rng: np.random.Generator) -> list[Damage]:
    if rng.random() < cfg.clean:
        return []
    # At least one, and `mean_defects` on the mean.
    count = 1 + rng.poisson(cfg.mean_defects - 1)
    taken: list[tuple[float, float, float, float]] = []
    damages = []
    for _ in range(count):
        kind = str(rng.choice(cfg.defects, p=_chances(cfg)))
        for _ in range(TRIES):
            damage = _drawn(cfg, kind, scene, rng)
            if damage is not None and _is_free(cfg, damage, part, taken):
                taken.append(damage.box_px)
                damages.append(damage)
                break
    return damages


def _chances(cfg: RenderedData) -> list[float]:
    """Of each kind of `cfg.defects`."""
    others = len(cfg.defects) - 1
    if "scratch" not in cfg.defects or not others:
        return [1 / len(cfg.defects)] * len(cfg.defects)
    rest = (1 - cfg.scratch_share) / others
    return [cfg.scratch_share if kind == "scratch" else rest for kind in cfg.defects]


def _drawn(cfg: RenderedData, kind: str, scene: Scene, rng: np.random.Generator) -> Damage | None:
    x = MARGIN_PX + rng.uniform(0, cfg.width_px)
    y = MARGIN_PX + rng.uniform(0, cfg.height_px)
    if kind != "scratch":
        return blobs.DRAWERS[kind](scene, (x, y), rng)
    longest = 0.9 * min(cfg.width_px, cfg.height_px) * cfg.optics.mm_per_px
    low, high = (min(length, longest) for length in cfg.scratch_length_mm)
    shape = scratch.draw_shape(cfg.scratch_width_mm, (low, high), cfg.scratch_contrast, rng)
    return scratch.draw(scene, shape, (x, y), rng)


def _is_free(
    cfg: RenderedData,
    damage: Damage,
    part: Part,
    taken: list[tuple[float, float, float, float]],
) -> bool:
    """Whether a defect lies inside of the image, on the part, and on no other one."""
    x1, y1, x2, y2 = damage.box_px
    low, right, bottom = MARGIN_PX + 2, MARGIN_PX + cfg.width_px - 2, MARGIN_PX + cfg.height_px - 2
    if x1 < low or y1 < low or x2 > right or y2 > bottom or not damage.is_core.any():
        return False
    if not part.is_material[damage.window][damage.is_core].all():
        return False
    apart = 6
    return all(
        x2 + apart < a1 or x1 - apart > a2 or y2 + apart < b1 or y1 - apart > b2
        for a1, b1, a2, b2 in taken
    )


def _add(
    cfg: RenderedData, image: np.ndarray, clean: np.ndarray, damage: Damage, bare: np.ndarray
) -> float:
    """Add a defect to an image; gives its contrast-to-noise.

    That is the mean of how far brightness changes over the pixels it covers, over the standard
    deviation of the surface around it (slow changes taken away) and of the sensor.
    """
    change = blur_window(cfg.optics, damage.change * bare)
    r = KERNEL_RADIUS_PX
    top, left = damage.top - r, damage.left - r
    rows = slice(max(top, 0), min(top + change.shape[0], image.shape[0]))
    columns = slice(max(left, 0), min(left + change.shape[1], image.shape[1]))
    inner = change[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    image[rows, columns] += inner
    around = clean[rows, columns]
    texture = around - ndimage.uniform_filter(around, 15, mode="nearest")
    noise = math.sqrt(float(texture.var()) + float((noise_of(cfg.optics, around) ** 2).mean()))
    core = change[r:-r, r:-r][damage.is_core]
    return float(np.abs(core).mean()) / noise


def _labelled(
    cfg: RenderedData,
    name: str,
    pixels: np.ndarray,
    template: np.ndarray | None,
    damages: list[Damage],
    contrasts: list[float],
) -> LabelledImage:
    boxes = np.array([damage.box_px for damage in damages], np.float32).reshape(-1, 4)
    boxes += np.array([-1, -1, 1, 1], np.float32) * np.float32(SPREAD_PX) - np.float32(MARGIN_PX)
    limits = np.array([cfg.width_px, cfg.height_px] * 2, np.float32)
    nowhere = ((math.nan, math.nan), (math.nan, math.nan))
    segments = np.array([damage.segment_px or nowhere for damage in damages], np.float32)
    return LabelledImage(
        name,
        pixels,
        np.clip(boxes, 0, limits),
        np.array([DEFECTS.index(damage.kind) for damage in damages], np.int64),
        template,
        cfg.optics.mm_per_px,
        lengths_mm=np.array([damage.length_mm for damage in damages], np.float32),
        widths_mm=np.array([damage.width_mm for damage in damages], np.float32),
        segments_px=segments.reshape(-1, 2, 2) - np.float32(MARGIN_PX),
        contrasts_to_noise=np.array(contrasts, np.float32),
    )


@lru_cache(maxsize=1)
def _code_version() -> str:
    """Changes with the code that makes the images."""
    files = [*Path(__file__).parent.glob("*.py"), Path(__file__).parents[2] / "mtf.py"]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
