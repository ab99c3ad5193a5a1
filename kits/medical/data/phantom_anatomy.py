"""Everything in a simulated chest that is a tube: vessels, airways, ribs, aorta; and its spine.

Points are (z, y, x) in millimetres, as in phantom_thorax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.medical.data.phantom_thorax import Thorax
from kits.medical.data.phantom_tubes import Tubes, along, grow_tree, join

TARGETS_PER_LITRE = 250  # ends of arteries, and as many of veins
TIP_MM = 0.65
AIRWAY_BESIDE_MM = 1.35  # smaller arteries' airways are too thin to be seen
NUM_RIBS = 12


@dataclass(frozen=True)
class Anatomy:
    """Tubes by tissue."""

    lung_vessels: Tubes
    blood: Tubes  # great vessels
    airway_walls: Tubes
    airways: Tubes  # lumen
    ribs: Tubes  # with the breastbone and the shoulder blades
    marrow: Tubes
    cartilage: Tubes
    soft: Tubes  # oesophagus, lymph nodes, scars
    arteries: Tubes  # those of lung_vessels that nodules may sit on


def build_anatomy(thorax: Thorax, rng: np.random.Generator) -> Anatomy:
    """Grow it."""
    blood, airways = _great_vessels(thorax), _central_airways(thorax)
    vessels, arteries = [], []
    lumen = [airways]
    for side in (-1, 1):
        hilum = _hilum(thorax, side)
        targets = [_inside(thorax, rng, side) for _ in range(2)]
        artery = _bend(grow_tree(hilum, targets[0], TIP_MM, 7.0), rng)
        vein_root = hilum + np.array([-16.0, -6.0, -6.0 * side])
        vein = _bend(grow_tree(vein_root, targets[1], TIP_MM, 6.5), rng)
        vessels += [artery, vein]
        arteries.append(artery)
        lumen.append(_bronchi(artery))
    lumens = join(lumen)
    walls = lumens.resized(lambda radius: radius + np.clip(0.2 * radius, 0.3, 1.4))
    ribs = join([_ribs(thorax, bone=True), _sternum(thorax), _shoulder_blades(thorax)])
    return Anatomy(
        lung_vessels=join(vessels),
        blood=blood,
        airway_walls=walls,
        airways=lumens,
        ribs=ribs,
        marrow=ribs.resized(lambda radius: radius - 1.5),
        cartilage=_ribs(thorax, bone=False),
        soft=join([_oesophagus(thorax), _lymph_nodes(thorax, rng), _scars(thorax, rng)]),
        arteries=join(arteries),
    )


def _hilum(thorax: Thorax, side: int) -> np.ndarray:
    return np.array([0.50 * thorax.build.height_mm + 4 * side, 6.0, 30.0 * side])


def _inside(thorax: Thorax, rng: np.random.Generator, side: int) -> np.ndarray:
    """Random points of one lung, a little away from its surface."""
    build = thorax.build
    litres = build.half_width_mm * build.half_depth_mm * build.height_mm * 2.4e-6 / 2
    wanted = int(TARGETS_PER_LITRE * litres)
    box = np.array([build.height_mm, 2 * build.half_depth_mm, build.half_width_mm])
    points = rng.random((wanted * 5, 3)) * box - [0, build.half_depth_mm, 0]
    points[:, 2] *= side
    return points[thorax.lungs.at(points) > 3.5][:wanted]


def _bend(tubes: Tubes, rng: np.random.Generator) -> Tubes:
    """Give straight pieces a natural course: a smooth displacement of space."""
    wave = rng.normal(0, 1 / 13, (3, 8, 3))
    phase = rng.uniform(0, 2 * np.pi, (3, 8))

    def moved(points: np.ndarray) -> np.ndarray:
        shift = np.sin(np.einsum("akp,np->nak", wave, points) + phase).sum(2)
        return points + 0.55 * shift

    return Tubes(moved(tubes.start), moved(tubes.stop), tubes.radius_mm)


def _bronchi(artery: Tubes) -> Tubes:
    """Each airway runs beside its artery, a little narrower, as far as it can be seen."""
    seen = artery.take(artery.radius_mm[:, 0] > AIRWAY_BESIDE_MM)
    inner = 0.72 * seen.radius_mm
    beside = np.array([0.35, 0.75, 0.0])
    outward = np.sign(seen.start[:, 2:]) * np.array([0, 0, -0.55])
    shift = (beside + outward) * (seen.radius_mm.mean(1, keepdims=True) * 2.1 + 0.5)
    return Tubes(seen.start + shift, seen.stop + shift, inner)


def _central_airways(thorax: Thorax) -> Tubes:
    top, carina = thorax.build.height_mm + 40, 0.60 * thorax.build.height_mm
    middle = np.array([carina, 14.0, 0.0])
    trachea = along(np.array([[top, -2.0, 0.0], middle]), 8.5)
    ends = [_hilum(thorax, side) + np.array([2.0, 6.0, -8.0 * side]) for side in (-1, 1)]
    main = [along(np.array([middle, end]), np.array([7.0, 5.2])) for end in ends]
    return join([trachea, *main])


def _great_vessels(thorax: Thorax) -> Tubes:
    build = thorax.build
    arch, back = 0.70 * build.height_mm, thorax.spine_y_mm - 20
    angle = np.linspace(0, np.pi, 9)
    curve = np.column_stack(
        [arch - 10 + 12 * np.sin(angle), -28 + (28 + back) * angle / np.pi, 4 + 18 * angle / np.pi]
    )
    ascending = np.array([[0.45 * build.height_mm, -22, 0], curve[0]])
    descending = np.array([curve[-1], [-60, back, 20]])
    root = np.array([0.52 * build.height_mm, -14.0, 12.0])
    pulmonary = [
        along(np.array([root, _hilum(thorax, side)]), np.array([11.0, 7.5])) for side in (-1, 1)
    ]
    cava = np.array([[0.45 * build.height_mm, -12, -24], [build.height_mm + 20, -22, -22]])
    branches = [
        along(np.array([[arch, y, x], [build.height_mm + 30, y - 4, x * 1.8]]), 4.5)
        for y, x in ((-14, -4), (-4, 9), (6, 14))
    ]
    return join(
        [
            along(ascending, 15),
            along(curve, 13),
            along(descending, 11.5),
            along(cava, 8.5),
            *pulmonary,
            *branches,
        ]
    )


def _ribs(thorax: Thorax, *, bone: bool) -> Tubes:
    """Ribs run from the spine around the cage and down; the last part in front is cartilage."""
    build = thorax.build
    angle = np.linspace(0.10, 0.80, 36) if bone else np.linspace(0.80, 0.97, 10)
    spacing = build.height_mm * 1.02 / (NUM_RIBS - 1)
    parts = []
    for number in range(NUM_RIBS):
        begin = build.height_mm * 1.05 - number * spacing
        turn = angle * np.pi
        z = begin - (34 + 4 * number) * np.sin(turn / 2) ** 1.5
        reach = np.clip(z / build.height_mm, -0.2, 1.15)
        width, depth = _cage_axes(thorax, reach)
        for side in (-1, 1):
            y = 4 * reach + (depth + 6) * _power(np.cos(turn))
            x = side * (width + 6) * _power(np.sin(turn))
            parts.append(along(np.column_stack([z, y, x]), 5.2 if bone else 4.6))
    return join(parts)


def _sternum(thorax: Thorax) -> Tubes:
    build = thorax.build
    z = np.linspace(0.34, 0.86, 12) * build.height_mm
    reach = z / build.height_mm
    _, depth = _cage_axes(thorax, reach)
    y = 4 * reach - depth - 7
    half = 6 + 8 * np.clip(reach - 0.7, 0, 1) / 0.16
    columns = [np.column_stack([z, y, share * half]) for share in (-1, -0.35, 0.35, 1)]
    return join([along(points, 5.5) for points in columns])


def _shoulder_blades(thorax: Thorax) -> Tubes:
    """Thin plates behind the upper ribs."""
    build = thorax.build
    parts = []
    for share in np.linspace(0, 1, 13):
        z = np.linspace(0.52, 0.98 - 0.16 * share, 10) * build.height_mm
        turn = (0.20 + 0.19 * share * np.linspace(0.4, 1, 10)) * np.pi
        width, depth = _cage_axes(thorax, np.full(10, 0.62))
        for side in (-1, 1):
            y = (depth + 17) * _power(np.cos(turn)) + 4
            x = side * (width + 16) * _power(np.sin(turn))
            parts.append(along(np.column_stack([z, y, x]), 2.0))
    return join(parts)


def _power(value: np.ndarray) -> np.ndarray:
    # The cage is a superellipse of this exponent.
    return np.sign(value) * np.abs(value) ** (2 / 2.3)


def _cage_axes(thorax: Thorax, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    build = thorax.build
    width = build.half_width_mm * (1.0 - 0.22 * np.clip(reach - 0.25, 0, 1) ** 1.5)
    depth = build.half_depth_mm * (1.0 - 0.12 * np.clip(reach - 0.3, 0, 1))
    dome = np.clip((reach - 0.45) / 0.55, 0, None) ** 2.4
    shrink = np.sqrt(np.clip(1 - dome, 0.18, 1))
    return width * shrink, depth * shrink


def _oesophagus(thorax: Thorax) -> Tubes:
    build = thorax.build
    points = np.array([[build.height_mm + 30, 16, 3], [0.5 * build.height_mm, 28, 4], [-20, 26, 8]])
    return along(points, 6.0)


def _lymph_nodes(thorax: Thorax, rng: np.random.Generator) -> Tubes:
    parts = []
    for _ in range(rng.integers(5, 12)):
        side = rng.choice([-1, 1])
        centre = _hilum(thorax, side) + rng.normal(0, 1, 3) * [22, 12, 5]
        centre[2] -= side * rng.uniform(2, 14)
        parts.append(along(np.stack([centre, centre + rng.normal(0, 2, 3)]), rng.uniform(2, 5)))
    return join(parts)


def _scars(thorax: Thorax, rng: np.random.Generator) -> Tubes:
    """Bands from the pleura inward, and thickened pleura: what is no nodule but looks like one."""
    build = thorax.build
    low = np.array([0, -build.half_depth_mm, -build.half_width_mm])
    points = low + rng.random((4000, 3)) * [build.height_mm, *(-2 * low[1:])]
    depth = thorax.lungs.at(points)
    near = points[(depth > 0.5) & (depth < 3)][: rng.integers(6, 16)]
    parts = []
    for point in near:
        way = rng.normal(0, 1, 3)
        way /= np.linalg.norm(way)
        length = rng.uniform(5, 28)
        middle = point + way * length / 2 + rng.normal(0, 1.2, 3)
        course = np.stack([point, middle, point + way * length])
        parts.append(along(course, np.array([1.0, 0.7, 0.3]) * rng.uniform(0.5, 1.6)))
    return join(parts)
