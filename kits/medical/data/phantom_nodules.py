"""Real reader masks, set into a simulated chest: where, how they look, what the readers marked.

Points are (z, y, x) in millimetres; R readers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from core.kit import Split
from kits.medical.data.case import TrueNodule
from kits.medical.data.phantom_anatomy import Anatomy
from kits.medical.data.phantom_field import Axes, blend
from kits.medical.data.phantom_thorax import Thorax
from kits.medical.geometry import Window

SAMPLE = Path(__file__).parent / "sample" / "nodules.npz"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
PAD_MM = 4.0
KINDS = ("lung", "pleura", "vessel")
KIND_SHARES = (0.5, 0.28, 0.22)
GAP_MM = 4.0  # between two nodules
MIN_READERS = 3  # of the nodules that detection is scored on


@dataclass(frozen=True)
class SampleNodule:
    """A nodule of the shipped sample."""

    number: int
    masks: np.ndarray  # (R, d, h, w) bool
    spacing_mm: np.ndarray  # (3,)
    diameter_mm: float
    texture: float
    malignancy: float
    margin: float
    calcification: float

    @property
    def extent_mm(self) -> np.ndarray:
        """(3,) size of what anybody marked."""
        return np.array(self.masks.shape[1:]) * self.spacing_mm


@cache
def sample_nodules(split: Split) -> tuple[SampleNodule, ...]:
    """The nodules of a split's patients."""
    with np.load(SAMPLE, allow_pickle=False) as stored:
        table = dict(stored)
    nodules = []
    for number in np.nonzero(table["split"] == SPLITS.index(split))[0]:
        shape = table["shape"][number]
        bits = table["bits"][table["start"][number] : table["start"][number + 1]]
        masks = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
        facts = ("diameter_mm", "texture", "malignancy", "margin", "calcification")
        nodules.append(
            SampleNodule(
                int(number),
                masks,
                table["spacing_mm"][number].astype(np.float64),
                **{name: float(table[name][number]) for name in facts},
            )
        )
    return tuple(nodules)


@dataclass(frozen=True)
class PlacedNodule:
    """A sample nodule at a place in the chest, turned, with its tissue."""

    source: SampleNodule
    kind: str
    centre_mm: np.ndarray  # (3,)
    turn: np.ndarray  # (3, 3): rows are the nodule's own axes in the chest
    distances_mm: np.ndarray  # (R, d, h, w): signed, positive inside, on the padded own grid
    hu: float
    core_hu: float | None  # of the solid part
    core_mm: float  # how far the core lies inside
    contrast: float  # 1; less where readers did not agree that there is a nodule

    @property
    def reach_mm(self) -> np.ndarray:
        """(3,) half of the box that holds it."""
        half = self.source.extent_mm / 2
        return np.abs(self.turn.T) @ half + 1.0

    def grown(self, volume_factor: float) -> PlacedNodule:
        """The same nodule with another volume, and what its readers would mark then."""
        factor = volume_factor ** (1 / 3)
        source = replace(
            self.source,
            spacing_mm=self.source.spacing_mm * factor,
            diameter_mm=self.source.diameter_mm * factor,
        )
        return replace(self, source=source, distances_mm=self.distances_mm * np.float32(factor))

    def sample(self, axes: Axes) -> np.ndarray:
        """(R, d, h, w) signed distances at the axes' points."""
        mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1) - self.centre_mm
        own = (mesh @ self.turn.T) / self.source.spacing_mm
        own += (np.array(self.distances_mm.shape[1:]) - 1) / 2
        place = np.moveaxis(own, -1, 0)
        return np.stack(
            [map_coordinates(one, place, order=1, mode="nearest") for one in self.distances_mm]
        )

    def window(self, axes: Axes, margin_mm: float | np.ndarray = 0.0) -> Window:
        """The axes' voxels near the nodule."""
        reach = self.reach_mm + margin_mm
        bounds = [
            np.searchsorted(axis, [centre - far, centre + far])
            for axis, centre, far in zip(axes, self.centre_mm, reach, strict=True)
        ]
        return tuple(slice(int(a), int(b)) for a, b in bounds)  # type: ignore[return-value]

    def draw(self, hu: np.ndarray, axes: Axes, edge_mm: float) -> None:
        """Put the nodule's tissue into an image, in place."""
        window = self.window(axes, 1.5)
        if any(part.stop <= part.start for part in window):
            return
        near = tuple(axis[part] for axis, part in zip(axes, window, strict=True))
        distances = self.sample(near).astype(np.float32)  # type: ignore[arg-type]
        # Where only some readers saw tissue there is less of it.
        soft = edge_mm + 0.45 * max(0.0, 5 - self.source.margin)
        share = np.clip(distances / soft + 0.5, 0, 1).mean(0) * np.float32(self.contrast)
        part = hu[window]
        drawn = part.copy()
        blend(drawn, self.hu, share)
        if self.core_hu is not None:
            middle = distances.mean(0) - self.core_mm
            blend(drawn, self.core_hu, np.clip(middle / soft + 0.5, 0, 1) * self.contrast)
        np.maximum(part, drawn, out=part)

    def truth(self, axes: Axes, name: str) -> TrueNodule:
        """What the readers marked, on a scan's voxels; every reader's volume is kept."""
        steps = np.array([axis[1] - axis[0] for axis in axes])
        # A nodule between two thick slices is marked on the nearer one.
        window = self.window(axes, steps / 2)
        near = tuple(axis[part] for axis, part in zip(axes, window, strict=True))
        distances = self.sample(near)  # type: ignore[arg-type]
        voxel_mm3 = float(np.prod(steps))
        own_mm3 = float(np.prod(self.source.spacing_mm))
        votes = np.zeros(distances.shape[1:], np.uint8)
        for reader, distance in enumerate(distances):
            volume_mm3 = self.source.masks[reader].sum() * own_mm3
            count = int(np.clip(round(volume_mm3 / voxel_mm3), 1, distance.size))
            inside = np.argsort(-distance, axis=None, kind="stable")[:count]
            votes.reshape(-1)[inside] |= np.uint8(1 << reader)
        found = np.nonzero(votes)
        low, high = np.min(found, axis=1), np.max(found, axis=1) + 1
        kept = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        moved = tuple(
            slice(part.start + int(a), part.start + int(b))
            for part, a, b in zip(window, low, high, strict=True)
        )
        readers = len(distances)
        count = sum((votes >> reader & 1).astype(int) for reader in range(readers))
        volume_mm3 = float((2 * count >= readers).sum()) * voxel_mm3
        return TrueNodule(
            name=name,
            window=moved,  # type: ignore[arg-type]
            votes=np.ascontiguousarray(votes[kept]),
            num_readers=readers,
            diameter_mm=float((6 / np.pi * volume_mm3) ** (1 / 3)),
            texture=self.source.texture,
            malignancy=self.source.malignancy,
        )


def signed_distances(masks: np.ndarray, spacing_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of each reader's mask, positive inside, zero half-way to the next voxel."""
    pad = np.ceil(PAD_MM / spacing_mm).astype(int)
    width = [(0, 0), *((int(p), int(p)) for p in pad)]
    padded = np.pad(masks, width)
    distances = [
        distance_transform_edt(mask, spacing_mm) - distance_transform_edt(~mask, spacing_mm)
        for mask in padded
    ]
    # Takes the voxels' corners off without moving the surface.
    smooth = [gaussian_filter(distance, 0.35 / spacing_mm) for distance in distances]
    return np.stack(smooth).astype(np.float32), pad


def place_nodules(
    thorax: Thorax,
    anatomy: Anatomy,
    box_mm: np.ndarray,
    split: Split,
    rng: np.random.Generator,
) -> tuple[PlacedNodule, ...]:
    """Choose nodules of a split and places for them inside the lungs and a box.

    Args:
        thorax: its lungs.
        anatomy: its vessels.
        box_mm: (2, 3) corners of what is scanned.
        split: whose masks may be used.
        rng: decides all.
    """
    sample = sample_nodules(split)
    agreed = [nodule for nodule in sample if len(nodule.masks) >= MIN_READERS]
    doubted = [nodule for nodule in sample if len(nodule.masks) < MIN_READERS]
    wanted = [agreed[k] for k in rng.choice(len(agreed), rng.integers(7, 11), replace=False)]
    wanted += [doubted[k] for k in rng.choice(len(doubted), rng.integers(1, 5), replace=False)]
    # The large ones first, while there is room.
    wanted.sort(key=lambda nodule: -nodule.diameter_mm)
    placed: list[PlacedNodule] = []
    for source in wanted:
        nodule = _prepare(source, rng)
        centre = _find_place(nodule, thorax, anatomy, box_mm, placed, rng)
        if centre is not None:
            placed.append(replace(nodule, centre_mm=centre))
    return tuple(placed)


def _prepare(source: SampleNodule, rng: np.random.Generator) -> PlacedNodule:
    angle = rng.uniform(0, 2 * np.pi)
    flips = rng.choice([-1.0, 1.0], 3)
    turn = np.array(
        [
            [flips[0], 0, 0],
            [0, np.cos(angle), -np.sin(angle)],
            [0, flips[1] * np.sin(angle), flips[1] * np.cos(angle)],
        ]
    )
    distances, _ = signed_distances(source.masks, source.spacing_mm)
    hu, core_hu = _tissue(source, rng)
    readers = len(source.masks)
    return PlacedNodule(
        source=source,
        kind=str(rng.choice(KINDS, p=KIND_SHARES)),
        centre_mm=np.zeros(3),
        turn=turn,
        distances_mm=distances,
        hu=hu,
        core_hu=core_hu,
        core_mm=float(rng.uniform(0.15, 0.35) * source.diameter_mm),
        contrast=float(rng.uniform(*{1: (0.45, 0.95), 2: (0.6, 1)}.get(readers, (0.85, 1)))),
    )


def _tissue(source: SampleNodule, rng: np.random.Generator) -> tuple[float, float | None]:
    """HU of a nodule and of its core, after the readers' texture and calcification."""
    if source.calcification <= 3.5:
        return float(rng.uniform(180, 420)), None
    if source.calcification < 5.5:
        return float(rng.normal(45, 15)), float(rng.uniform(200, 450))
    if source.texture >= 4.5:
        return float(rng.normal(28, 18)), None
    ground = float(np.clip(rng.normal(-590, 60), -700, -450))
    if source.texture <= 1.5:
        return ground, None
    return ground, float(rng.normal(5, 25))


def _find_place(
    nodule: PlacedNodule,
    thorax: Thorax,
    anatomy: Anatomy,
    box_mm: np.ndarray,
    placed: list[PlacedNodule],
    rng: np.random.Generator,
) -> np.ndarray | None:
    reach = nodule.reach_mm
    low, high = box_mm[0] + reach + 2, box_mm[1] - reach - 2
    if (high <= low).any():
        return None
    radius = nodule.source.diameter_mm / 2
    if nodule.kind == "vessel":
        points = _beside_vessels(anatomy, radius, rng)
    else:
        points = low + rng.random((6000, 3)) * (high - low)
    points = points[((points > low) & (points < high)).all(1)]
    depth = thorax.lungs.at(points) if len(points) else np.empty(0)
    if nodule.kind == "pleura":
        fits = (depth > 0.75 * radius) & (depth < 1.0 * radius)
    else:
        fits = depth > reach.max() + 0.5
    for point in points[fits][:200]:
        apart = [
            np.linalg.norm(point - other.centre_mm)
            > np.linalg.norm(reach) * 0.8 + np.linalg.norm(other.reach_mm) * 0.8 + GAP_MM
            for other in placed
        ]
        if all(apart):
            return point
    return None


def _beside_vessels(anatomy: Anatomy, radius_mm: float, rng: np.random.Generator) -> np.ndarray:
    chosen = anatomy.arteries.radius_mm[:, 0]
    pieces = anatomy.arteries.take((chosen > 0.7) & (chosen < 2.5))
    pieces = pieces.take(rng.permutation(len(pieces))[:3000])
    way = rng.normal(0, 1, (len(pieces), 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return pieces.start + way * (0.85 * radius_mm + pieces.radius_mm[:, :1])
