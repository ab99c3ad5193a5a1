"""Tubes in a simulated chest: how vessel trees grow, and how tubes become voxels.

Points are (z, y, x) in millimetres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kits.medical.data.phantom_field import Axes

NODE_MM = 5.0  # a tree's edges are no longer
PATH_WEIGHT = 0.35  # how much a short way to the root counts against a near neighbour
MURRAY = 2.7  # r^MURRAY of a vessel is the sum over its branches


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


def paint(share: np.ndarray, axes: Axes, tubes: Tubes, edge_mm: float) -> None:
    """Raise, in place, each voxel's share to what the tubes cover of it.

    A tube thinner than a voxel covers the part that its cross-section is of the voxel's.
    """
    low = np.array([axis[0] for axis in axes])
    step = np.array([axis[1] - axis[0] if len(axis) > 1 else 1.0 for axis in axes])
    reach = tubes.radius_mm.max(1)[:, None] + edge_mm
    first = np.ceil((np.minimum(tubes.start, tubes.stop) - reach - low) / step).astype(int)
    last = np.floor((np.maximum(tubes.start, tubes.stop) + reach - low) / step).astype(int) + 1
    first = np.maximum(first, 0)
    last = np.minimum(last, share.shape)
    for number in np.nonzero((first < last).all(1))[0]:
        window = tuple(slice(a, b) for a, b in zip(first[number], last[number], strict=True))
        covered = _capsule(
            [axis[part] for axis, part in zip(axes, window, strict=True)],
            tubes.start[number],
            tubes.stop[number],
            tubes.radius_mm[number],
            edge_mm,
        )
        np.maximum(share[window], covered, out=share[window])


def _capsule(
    axes: list[np.ndarray],
    start: np.ndarray,
    stop: np.ndarray,
    radius_mm: np.ndarray,
    edge_mm: float,
) -> np.ndarray:
    z, y, x = ((axis - begin).astype(np.float32) for axis, begin in zip(axes, start, strict=True))
    way = (stop - start).astype(np.float32)
    length2 = max(float(way @ way), 1e-9)
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    along_way = np.clip((z * way[0] + y * way[1] + x * way[2]) / length2, 0, 1)
    distance = np.sqrt(
        (z - along_way * way[0]) ** 2
        + (y - along_way * way[1]) ** 2
        + (x - along_way * way[2]) ** 2
    )
    radius = np.float32(radius_mm[0]) + along_way * np.float32(radius_mm[1] - radius_mm[0])
    drawn = np.maximum(radius, edge_mm / 2)
    covered = np.clip((drawn - distance) / np.float32(edge_mm) + np.float32(0.5), 0, 1)
    return covered * np.minimum((radius / drawn) ** 2, 1)
