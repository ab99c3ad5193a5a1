"""What a product's parts have in common: surface, light, and what is machined or printed on them.

Lengths are mm on the part. The camera looks straight down; a slope is the tangent of an angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from kits.defect.optics_config import OpticsConfig

Vector = tuple[float, float]  # x to the right, y down


@dataclass(frozen=True)
class Surface:
    """How a surface reflects: a diffuse part and a lobe of mirror-like facets around its slope."""

    kind: str
    axis: Vector  # brushed: across the brush; others: towards the light
    # Spread of the facets' slopes that no pixel resolves: along `axis`, and across it.
    spread: Vector
    diffuse: float
    specular: float
    # Resolved texture: how far it changes brightness (rms), and its lengths.
    texture: float
    fine_mm: float
    long_mm: float
    stroke_angle: float  # brushed: rms of the strokes' directions, radians
    # Grain that changes the reflectance itself: flakes, pores (rms).
    grain: float


@dataclass(frozen=True)
class Light:
    """Where the light mirrors into the camera, and how evenly it falls; u v are -1..1 in x."""

    # Slope that would mirror it, at the frame's centre and its change with u and v; per axis.
    offset: Vector
    drift_u: Vector
    drift_v: Vector
    tilt: Vector
    vignette: float


@dataclass(frozen=True)
class Feature:
    """Something that belongs on the part."""

    kind: str  # bore, groove, mark, edge
    centre_mm: Vector  # in the frame of the camera
    size_mm: Vector  # radius and chamfer; half length and half width; half width and half height
    angle: float = 0.0
    shade: float = 1.0  # reflectance inside
    seed: int = 0  # of a mark's pattern


@dataclass(frozen=True)
class Product:
    """One product, seen by one camera."""

    surface: Surface
    light: Light
    features: tuple[Feature, ...] = field(default=())


def draw_product(
    kind: str, optics: OpticsConfig, rng: np.random.Generator, *, layout: bool
) -> Product:
    """A product of a kind of surface; the same generator state gives the same product."""
    surface = _surface(kind, rng)
    light = _light(surface, rng)
    features = _features(optics, rng) if layout else ()
    return Product(surface, light, features)


def unit(angle: float) -> Vector:
    """The direction of an angle, clockwise from the right."""
    return math.cos(angle), math.sin(angle)


def _surface(kind: str, rng: np.random.Generator) -> Surface:
    draw = rng.uniform
    if kind == "brushed":
        # Brushed along an edge of the part more often than not.
        along = rng.choice([0.0, math.pi / 2, draw(0, math.pi)]) + rng.normal(0, 0.02)
        return Surface(
            kind, unit(along + math.pi / 2), (draw(0.16, 0.28), draw(0.06, 0.14)),
            draw(0.08, 0.25), 1.0, draw(0.035, 0.08), draw(0.06, 0.14), draw(4, 18),
            draw(0.002, 0.02), draw(0.005, 0.02),
        )  # fmt: skip
    axis = unit(draw(0, 2 * math.pi))
    if kind == "painted":
        spread = draw(0.03, 0.09)
        return Surface(
            kind, axis, (spread, 1.5 * spread), draw(0.6, 1.2), draw(0.1, 0.5), draw(0.01, 0.03),
            draw(0.8, 2.5), draw(3, 8), 0.0, draw(0.005, 0.035),
        )  # fmt: skip
    spread = draw(0.15, 0.3)
    return Surface(
        kind, axis, (spread, spread), draw(0.25, 0.6), draw(0.6, 1.0), draw(0.05, 0.12),
        draw(0.12, 0.35), draw(0.5, 1.5), 0.0, draw(0.01, 0.04),
    )  # fmt: skip


def _light(surface: Surface, rng: np.random.Generator) -> Light:
    draw = rng.uniform
    # Half of the angle under which the frame's half width is seen, from some three widths away:
    # so far the mirroring slope drifts from the centre to the edge.
    drift = 0.5 / draw(4, 8)
    first, second = surface.axis, (-surface.axis[1], surface.axis[0])
    off_mirror = draw(0.5, 1.1) * rng.choice([-1, 1])
    return Light(
        offset=(off_mirror * surface.spread[0], draw(-0.4, 0.4) * surface.spread[1]),
        drift_u=(drift * first[0], 0.6 * drift * second[0]),
        drift_v=(drift * first[1], 0.6 * drift * second[1]),
        tilt=(draw(-0.15, 0.15), draw(-0.15, 0.15)),
        vignette=draw(0.03, 0.2),
    )


def _features(optics: OpticsConfig, rng: np.random.Generator) -> tuple[Feature, ...]:
    width, height = optics.fov_mm, optics.fov_mm * optics.sensor_height_px / optics.sensor_width_px
    found = []
    # As many as a plate of 300 x 169 mm has, at most 40.
    area = min(1.0, width * height / (300 * 169))
    scale = min(1.0, width / 100)

    def place() -> Vector:
        return float(rng.uniform(0, width)), float(rng.uniform(0, height))

    for _ in range(rng.poisson(7 * area)):
        size = (float(rng.uniform(1.5, 8)) * scale, float(rng.uniform(0.2, 0.8)) * scale)
        found.append(Feature("bore", place(), size, shade=float(rng.uniform(0.03, 0.2))))
    for _ in range(rng.poisson(2 * area)):
        size = (float(rng.uniform(15, 120)) * scale, float(rng.uniform(0.4, 1.5)) * scale)
        angle = float(rng.choice([0.0, math.pi / 2]))
        found.append(Feature("groove", place(), size, angle))
    for _ in range(rng.poisson(3 * area)):
        size = (float(rng.uniform(4, 15)) * scale, float(rng.uniform(1, 3)) * scale)
        shade = float(rng.choice([rng.uniform(0.25, 0.6), rng.uniform(1.3, 1.7)]))
        angle = float(rng.choice([0.0, math.pi / 2]))
        found.append(Feature("mark", place(), size, angle, shade, int(rng.integers(2**31))))
    if rng.random() < 0.5:
        margin = float(rng.uniform(0.01, 0.05)) * width
        half = (width / 2 - margin, height / 2 - margin)
        found.append(Feature("edge", (width / 2, height / 2), half, shade=rng.uniform(0.03, 0.15)))
    return tuple(found)
