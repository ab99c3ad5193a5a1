"""Tubes in a simulated chest: how vessel trees grow, and how tubes become voxels.

Points are (z, y, x) in millimetres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kits.medical.data.phantom_field import Axes

NODE_MM = 5.0  # a tree's edges are no longer
PATH_WEIGHT = 0.5  # how much a short way to the root counts against a near neighbour
MURRAY = 2.2  # r^MURRAY of a vessel is the sum over its branches


@dataclass(frozen=True)
class Tubes:
    """Straight pieces with a radius at each end."""

    start: np.ndarray  # (n, 3) mm
    stop: np.ndarray  # (n, 3)
    radius_mm: np.ndarray  # (n, 2)

    def __len__(self) -> int:
        """How many pieces."""
        return len(self.start)

    def take(self, chosen: np.ndarray) -> Tubes:
        """Some of the pieces."""
        return Tubes(self.start[chosen], self.stop[chosen], self.radius_mm[chosen])

    def resized(self, radius: Callable[[np.ndarray], np.ndarray]) -> Tubes:
        """The same course with other radii."""
        return Tubes(self.start, self.stop, radius(self.radius_mm))


def join(parts: list[Tubes]) -> Tubes:
    """Tubes as one."""
    return Tubes(
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.stop for part in parts]),
        np.concatenate([part.radius_mm for part in parts]),
    )


def along(points: np.ndarray, radius_mm: np.ndarray | float) -> Tubes:
    """A tube through points; its radius is given at each, or is one."""
    points = np.asarray(points, np.float64)
    radius = np.broadcast_to(radius_mm, len(points))
    return Tubes(points[:-1], points[1:], np.column_stack([radius[:-1], radius[1:]]))


def grow_tree(root: np.ndarray, targets: np.ndarray, tip_mm: float, root_mm: float) -> Tubes:
    """A tree of vessels from a root to every target; branches join where the way is short.

    Args:
        root: (3,) where it begins.
        targets: (n, 3) where the smallest branches end.
        tip_mm: radius there.
        root_mm: the largest radius a vessel may have.
    """
    order = np.argsort(((targets - root) ** 2).sum(1), kind="stable")
    room = 1 + sum(
        max(1, int(np.ceil(length / NODE_MM)) + 2)
        for length in np.sqrt(((targets - root) ** 2).sum(1))
    )
    node = np.empty((room, 3))
    way = np.zeros(room)
    parent = np.full(room, -1)
    node[0], count = root, 1
    for target in targets[order]:
        step = np.sqrt(((node[:count] - target) ** 2).sum(1))
        nearest = int(np.argmin(step + PATH_WEIGHT * way[:count]))
        pieces = max(1, int(np.ceil(step[nearest] / NODE_MM)))
        for piece in range(1, pieces + 1):
            node[count] = node[nearest] + (target - node[nearest]) * (piece / pieces)
            way[count] = way[nearest] + step[nearest] * piece / pieces
            parent[count] = nearest if piece == 1 else count - 1
            count += 1
    leaves = np.zeros(count)
    has_child = np.zeros(count, bool)
    has_child[parent[1:count]] = True
    leaves[~has_child] = 1
    for child in range(count - 1, 0, -1):
        leaves[parent[child]] += leaves[child]
    radius = np.minimum(tip_mm * leaves ** (1 / MURRAY), root_mm)
    child = np.arange(1, count)
    # A branch has its own radius from its first point on, not its parent's.
    return Tubes(node[parent[child]], node[child], np.column_stack([radius[child], radius[child]]))


@dataclass(frozen=True)
class Tissue:
    """What a tube is made of, and what it usually lies in."""

    hu: float
    around_hu: float


def paint(hu: np.ndarray, axes: Axes, tubes: Tubes, tissue: Tissue, edge_mm: float) -> None:
    """Draw tubes into an image, in place.

    A voxel that a tube covers in part becomes a mixture of the tube and what it usually lies in,
    and the more extreme of this and what was there stays: so pieces that meet leave no seams.
    """
    low = np.array([axis[0] for axis in axes])
    step = np.array([axis[1] - axis[0] for axis in axes])
    reach = tubes.radius_mm.max(1)[:, None] + edge_mm
    first = np.ceil((np.minimum(tubes.start, tubes.stop) - reach - low) / step).astype(int)
    last = np.floor((np.maximum(tubes.start, tubes.stop) + reach - low) / step).astype(int) + 1
    first = np.maximum(first, 0)
    last = np.minimum(last, hu.shape)
    extreme = np.maximum if tissue.hu > tissue.around_hu else np.minimum
    difference = np.float32(tissue.hu - tissue.around_hu)
    for number in np.nonzero((first < last).all(1))[0]:
        window = tuple(slice(a, b) for a, b in zip(first[number], last[number], strict=True))
        share = _capsule(
            [axis[part] for axis, part in zip(axes, window, strict=True)],
            tubes.start[number],
            tubes.stop[number],
            tubes.radius_mm[number],
            edge_mm,
        )
        is_covered = share > 0
        share *= difference
        share += np.float32(tissue.around_hu)
        part = hu[window]
        extreme(part, share, out=part, where=is_covered)


def _capsule(
    axes: list[np.ndarray],
    start: np.ndarray,
    stop: np.ndarray,
    radius_mm: np.ndarray,
    edge_mm: float,
) -> np.ndarray:
    """(d, h, w) share of each voxel inside a tube; a thin tube covers its cross-section's part."""
    z, y, x = ((axis - begin).astype(np.float32) for axis, begin in zip(axes, start, strict=True))
    way = (stop - start).astype(np.float32)
    length2 = np.float32(max(float(way @ way), 1e-9))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    along_way = (z * (way[0] / length2) + y * (way[1] / length2)) + x * (way[2] / length2)
    np.clip(along_way, 0, 1, out=along_way)
    # |p|^2 - 2 t p.w + t^2 |w|^2 would cancel badly; the three differences do not.
    distance = np.square(z - along_way * way[0])
    distance += np.square(y - along_way * way[1])
    distance += np.square(x - along_way * way[2])
    np.sqrt(distance, out=distance)
    if radius_mm[0] == radius_mm[1]:
        drawn = max(float(radius_mm[0]), edge_mm / 2)
        full = min((float(radius_mm[0]) / drawn) ** 2, 1.0)
        distance *= np.float32(-1 / edge_mm)
        distance += np.float32(drawn / edge_mm + 0.5)
        np.clip(distance, 0, 1, out=distance)
        distance *= np.float32(full)
        return distance
    radius = np.float32(radius_mm[0]) + along_way * np.float32(radius_mm[1] - radius_mm[0])
    drawn_all = np.maximum(radius, edge_mm / 2)
    covered = np.clip((drawn_all - distance) / np.float32(edge_mm) + np.float32(0.5), 0, 1)
    return covered * np.minimum((radius / drawn_all) ** 2, 1)
