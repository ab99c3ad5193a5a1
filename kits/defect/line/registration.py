"""Where a part lies in a frame: to a fraction of a pixel as a whole, to a pixel for each cell.

A few anchors, far apart, follow the part from frame to frame: each is looked for near where the
last frame had it, and a plane through what they say tells shift, turn and stretch. Where they do
not agree on one (a warped part, a camera that trembles line by line), and where a part is looked
for anew, the best patch of each group of cells looks for its own rest, together with its
neighbours. Numpy and the native kernel.

Dimensions: H, W pixels; R, C cells; G, K rows and columns of groups; P patches. Shifts are (y, x):
by how much the part lies further down and right than in the template.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kernels.triage import CELL, GAIN_ONE, MAX_SHIFT, block_means, cell_grid, match, to_planes
from kits.defect.line.recipe import MOST_GAIN

MOST_GROUPS = 100  # up to which each cell may have a patch of its own
ANCHORS_A_SIDE = 5
SEARCH_PX = 24  # around the template's place, when the part is not where it was
FOLLOW_PX = 4  # around the last frame's place
REST_PX = 2  # around what the anchors say
AGREE_PX = 3  # within which of the common shift an anchor is believed at first
FIT_PX = 1.0  # and of the plane, in the end
# A movement has to be better than staying by so many standard deviations of noise, about: cells
# that are flat, or whose grain is another on each part, stay where the others are.
WORTH = 5.0
# A part that fits that much worse than the last ones is looked for everywhere.
WORSE_TIMES, WORSE_LEVELS = 1.3, 1.0
_LEVEL = np.diag([0.0, 0.1, 0.1])
_CORNERS = np.array([[1, down, right] for down in (-1, 1) for right in (-1, 1)])
BLOCKS_A_CELL = (CELL // 2) ** 2


@dataclass(frozen=True)
class Patches:
    """Cells by which a part is recognised: those with the most texture."""

    cells: np.ndarray  # (G, K, 2) int32, one of each group of cells
    side: int  # of a group, in cells
    anchors: np.ndarray  # (P, 2) int32, far apart


def choose_patches(template: np.ndarray) -> Patches:
    """Find the cells that say most about where a part lies.

    Args:
        template: (H, W) uint8 of a good part.
    """
    rows, columns = cell_grid(*template.shape)
    strength = _strength(template, rows, columns)
    side = 1
    while -(-rows // side) * -(-columns // side) > MOST_GROUPS:
        side += 1
    height, width = -(-rows // side), -(-columns // side)
    padded = np.full((height * side, width * side), -1.0, np.float32)
    padded[:rows, :columns] = strength
    groups = padded.reshape(height, side, width, side).swapaxes(1, 2).reshape(height, width, -1)
    best = groups.argmax(-1)
    down, right = side * np.arange(height)[:, None], side * np.arange(width)
    cells = np.stack([best // side + down, best % side + right], -1)
    return Patches(cells.astype(np.int32), side, _choose_anchors(strength))


def _choose_anchors(strength: np.ndarray) -> np.ndarray:
    """The strongest cell of each part of the frame."""
    rows, columns = strength.shape
    # A cell at the border is half out of view as soon as the part moves.
    edge = 1 if min(rows, columns) >= 4 else 0
    parts = [min(ANCHORS_A_SIDE, size - 2 * edge) for size in (rows, columns)]
    tops = np.linspace(edge, rows - edge, parts[0] + 1).astype(int)
    lefts = np.linspace(edge, columns - edge, parts[1] + 1).astype(int)
    found = []
    for top, bottom in pairwise(tops):
        for left, right in pairwise(lefts):
            best = int(strength[top:bottom, left:right].argmax())
            found.append((top + best // (right - left), left + best % (right - left)))
    return np.array(found, np.int32)


@dataclass(frozen=True)
class Plane:
    """What the anchors agree on."""

    place: np.ndarray  # (3, 2): shift at the middle; its growth downwards, and to the right
    mismatch: float  # see Placement
    gain: int  # see Placement
    is_exact: bool  # every anchor is where the plane has it
    is_beyond: bool  # it may lie further off than was looked for


@dataclass(frozen=True)
class Placement:
    """Where a part lies."""

    shifts: np.ndarray  # (R, C, 2) int32
    shift_px: tuple[float, float]  # (y, x) of the whole part, at its middle
    mismatch: float  # grey levels between blocks of the part and of the template, at the anchors
    gain: int  # that makes the frame as bright as the template, as the kernel takes it


class Registration:
    """Follows parts of one template; remembers where the last one lay."""

    def __init__(
        self,
        template: np.ndarray,
        mismatch_levels: float | None = None,
        most_gain: float = MOST_GAIN,
    ) -> None:
        """Choose what to look for.

        Args:
            template: (H, W) uint8 of a good part.
            mismatch_levels: below which a part was found; None: each is looked for everywhere.
            most_gain: that makes up for a darker lamp; as much for a brighter one.
        """
        self._most_gain = most_gain
        self._mismatch_levels = mismatch_levels
        self._grid = cell_grid(*template.shape)
        self._reference = to_planes(block_means(template), 0)
        patches = choose_patches(template)
        self._side = patches.side
        self._groups = patches.cells.shape[:2]
        self._patches = patches.cells.reshape(-1, 2)
        self._anchors = patches.anchors
        still = np.zeros_like(self._anchors)
        self._brightness = match(template, self._reference, self._anchors, still, 0)[1]
        self._design = _design(self._patches, self._grid)
        self._anchor_design = _design(self._anchors, self._grid)
        cells = np.argwhere(np.ones(self._grid, bool))
        self._cell_design = _design(cells, self._grid)
        self._place = np.zeros((3, 2))  # of the last part
        self._last_gain = GAIN_ONE
        self._usual: float | None = None  # mismatch of the last parts

    def locate(self, frame: np.ndarray) -> Placement:
        """Find the part.

        Args:
            frame: (H, W) uint8 of the template's size.
        """
        found = None if self._usual is None else self._follow(frame, FOLLOW_PX)
        if (
            found is None
            or found.is_beyond
            or found.mismatch > WORSE_TIMES * self._usual + WORSE_LEVELS
        ):
            self._place, self._usual = np.zeros((3, 2)), None
            found = self._follow(frame, SEARCH_PX)
        place, mismatch = found.place, found.mismatch
        is_known = self._usual is not None
        if self._mismatch_levels is not None and mismatch <= self._mismatch_levels:
            self._place = place
            self._usual = mismatch if self._usual is None else (3 * self._usual + mismatch) / 4
        else:
            self._place, self._usual = np.zeros((3, 2)), None
        self._last_gain = found.gain
        shifts = self._of_plane(place) if is_known and found.is_exact else self._rest(frame, place)
        return Placement(shifts, (float(place[0, 0]), float(place[0, 1])), mismatch, found.gain)

    def _of_plane(self, place: np.ndarray) -> np.ndarray:
        corners = np.clip(_whole(_CORNERS @ place), -MAX_SHIFT, MAX_SHIFT)
        if (corners == corners[0]).all():
            return np.tile(corners[0], (*self._grid, 1))
        shifts = _whole(self._cell_design @ place).reshape(*self._grid, 2)
        return np.clip(shifts, -MAX_SHIFT, MAX_SHIFT)

    def _follow(self, frame: np.ndarray, radius: int) -> Plane:
        base = _whole(self._anchor_design @ self._place)
        gain = self._last_gain
        if self._usual is None:
            brightness = match(frame, self._reference, self._anchors, base, 0)[1]
            gain = self._gain(brightness, GAIN_ONE)
        if radius > FOLLOW_PX:
            sums, _ = match(frame, self._reference, self._anchors, base, radius, gain)
            base = base + self._common(sums, radius)[0]
        sums, _ = match(frame, self._reference, self._anchors, base, FOLLOW_PX, gain)
        common, common_fraction = self._common(sums, FOLLOW_PX)
        best, fraction, is_worth = _best(sums, FOLLOW_PX, common, BLOCKS_A_CELL)
        fraction[~is_worth] = common_fraction
        start = CELL * self._anchors + base
        is_seen = ((start >= 0) & (start + CELL <= frame.shape)).all(1)
        if not is_seen.any():
            return Plane(self._place, 255.0, GAIN_ONE, is_exact=False, is_beyond=True)
        shifts = base + best + fraction
        least = sums[np.arange(len(sums)), best[:, 0] + FOLLOW_PX, best[:, 1] + FOLLOW_PX]
        mismatch = float(_middle(least[is_seen])) / BLOCKS_A_CELL
        middle = _middle(shifts[is_seen])
        place = np.zeros((3, 2))
        place[0] = middle
        is_near = is_seen & (np.abs(shifts - middle).max(1) <= AGREE_PX)
        is_exact = False
        for limit in (AGREE_PX, FIT_PX):
            if is_near.sum() < 6:
                break
            place = _fit(self._anchor_design[is_near], shifts[is_near])
            off = np.abs(self._anchor_design @ place - shifts).max(1)
            is_near = is_seen & (off <= limit)
            is_exact = bool((is_seen & (off > FIT_PX)).sum() <= 1)
            if is_exact:
                break
        # How bright the part is can be told only where it lies.
        there = _whole(self._anchor_design @ place)
        brightness = match(frame, self._reference, self._anchors, there, 0, gain)[1]
        gain = self._gain(brightness, gain)
        is_beyond = bool(np.abs(common).max() == FOLLOW_PX)
        return Plane(place, mismatch, gain, is_exact, is_beyond)

    def _gain(self, found: np.ndarray, gain_before: int) -> int:
        """From sums at the anchors; those out of view are 0."""
        ratios = self._brightness[found > 0] / found[found > 0]
        gain = float(_middle(ratios)) * gain_before / GAIN_ONE if len(ratios) else 1.0
        return round(GAIN_ONE * min(max(gain, 1 / self._most_gain), self._most_gain))

    def _common(self, sums: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """Where all anchors together fit best, and its fraction; as `_best`, for one."""
        total = sums.sum(0, dtype=np.int64)
        y, x = divmod(int(total.argmin()), 2 * radius + 1)
        worth = 1 + WORTH / math.sqrt(len(sums) * BLOCKS_A_CELL)
        if total[radius, radius] <= worth * total[y, x]:
            y = x = radius
        fraction = (0.0, 0.0)
        if 0 < y < 2 * radius and 0 < x < 2 * radius:
            here = float(total[y, x])
            fraction = (
                _vertex(float(total[y - 1, x]), here, float(total[y + 1, x])),
                _vertex(float(total[y, x - 1]), here, float(total[y, x + 1])),
            )
        return np.array([y - radius, x - radius], np.int32), np.array(fraction)

    def _rest(self, frame: np.ndarray, place: np.ndarray) -> np.ndarray:
        """(R, C, 2) int32: the shift of each cell, near the plane."""
        base = _whole(self._design @ place)
        sums, _ = match(frame, self._reference, self._patches, base, REST_PX, self._last_gain)
        size = 2 * REST_PX + 1
        grid = np.zeros((self._groups[0] + 2, self._groups[1] + 2, size, size), np.int64)
        grid[1:-1, 1:-1] = sums.reshape(*self._groups, size, size)
        rows = grid[:-2] + grid[1:-1] + grid[2:]
        around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
        best, _, _ = _best(
            around.reshape(sums.shape), REST_PX, np.zeros(2, np.int32), 9 * BLOCKS_A_CELL
        )
        groups = np.clip(base + best, -MAX_SHIFT, MAX_SHIFT).astype(np.int32)
        cells = groups.reshape(*self._groups, 2).repeat(self._side, 0).repeat(self._side, 1)
        return np.ascontiguousarray(cells[: self._grid[0], : self._grid[1]])


def _strength(template: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(R, C) of each cell: the smaller eigenvalue of the mean of its gradients' squares."""
    means = block_means(template)[::2, ::2].astype(np.float32)
    down, right = np.zeros_like(means), np.zeros_like(means)
    down[1:-1] = means[2:] - means[:-2]
    right[:, 1:-1] = means[:, 2:] - means[:, :-2]
    half = CELL // 2
    room = ((0, rows * half - means.shape[0]), (0, columns * half - means.shape[1]))

    def per_cell(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, room)
        return padded.reshape(rows, half, columns, half).mean((1, 3))

    a, b, c = per_cell(down * down), per_cell(right * right), per_cell(down * right)
    weakest = (a + b) / 2 - np.sqrt(((a - b) / 2) ** 2 + c * c)
    # A cell that is not wholly in the frame can never be matched.
    weakest[template.shape[0] // CELL :] = -1
    weakest[:, template.shape[1] // CELL :] = -1
    return weakest


def _design(patches: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(P, 3): 1, and the place of each patch in -1..1 of the frame."""
    centre = (np.array(grid) - 1) / 2
    return np.column_stack([np.ones(len(patches)), (patches - centre) / np.maximum(centre, 1)])


def _middle(values: np.ndarray) -> np.ndarray:
    """The (upper) median along the first axis, in a tenth of `np.median`'s time."""
    half = len(values) // 2
    return np.partition(values, half, axis=0)[half]


def _fit(design: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    # A little weight for "neither turned nor stretched", which few anchors cannot know.
    normal = design.T @ design + _LEVEL
    return np.linalg.solve(normal, design.T @ shifts)


def _whole(shifts: np.ndarray) -> np.ndarray:
    return np.rint(shifts).astype(np.int32)


def _vertex(before: float, here: float, after: float) -> float:
    """Where a V through three sums is lowest: its sides are as steep."""
    rise = max(before - here, after - here, 1.0)
    return min(max((before - after) / (2 * rise), -0.5), 0.5)


def _best(
    sums: np.ndarray, radius: int, still: np.ndarray, num_blocks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where sums of differences are least.

    Args:
        sums: (P, 2 radius + 1, 2 radius + 1), of so many blocks each.
        radius: pixels.
        still: (2,) int32, the movement that needs no reason.
        num_blocks: see there.

    Returns:
        (P, 2) int32 movements, (P, 2) fractions that are to be added, (P,) whether it is worth to
        move; `still` where it is not.
    """
    size, each = 2 * radius + 1, np.arange(len(sums))
    best = np.stack(divmod(sums.reshape(len(sums), -1).argmin(1), size), -1)
    least = sums[each, best[:, 0], best[:, 1]]
    at_rest = sums[:, still[0] + radius, still[1] + radius]
    is_worth = at_rest > least * (1 + WORTH / math.sqrt(num_blocks))
    best[~is_worth] = still + radius
    inner = np.clip(best, 1, size - 2)
    y, x = inner.T
    here = sums[each, y, x].astype(np.float64)
    sides = (
        (sums[each, y - 1, x], sums[each, y + 1, x]), (sums[each, y, x - 1], sums[each, y, x + 1])
    )  # fmt: skip
    fraction = np.zeros(best.shape)
    for axis, (before, after) in enumerate(sides):
        rise = np.maximum(np.maximum(before, after) - here, 1)
        fraction[:, axis] = (before.astype(np.float64) - after) / (2 * rise)
    fraction[(inner != best).any(1)] = 0
    return (best - radius).astype(np.int32), np.clip(fraction, -0.5, 0.5), is_worth
