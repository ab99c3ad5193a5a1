"""The definition of the triage, in plain numpy.

Dimensions: H, W pixels of a frame; R, C cells; P patches. A block is 2x2 pixels. Everything is done
on the means of blocks: a quarter of the work, half of the noise, and a mark of 2 px always fills
half of some block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CELL = 64  # pixels
BLOCKS = CELL // 2  # along a side of a cell
PAD = 16  # blocks of planes beyond the frame, on each side
MAX_SHIFT = 2 * PAD - 2  # pixels; what is read stays inside the planes
GAIN_ONE = 1 << 14
DIRECTIONS = ("horizontal", "vertical", "falling", "rising")  # of a ridge
_ALONG = ((0, 1), (1, 0), (1, 1), (1, -1))  # one block along a ridge of each direction (y, x)
_REACH = 2  # blocks across, from a ridge to its sides


@dataclass(frozen=True)
class Counts:
    """What was counted in each cell. Blocks start at even pixels unless told otherwise."""

    # (R, C) uint16: blocks that leave the envelope by more than the strong level, of those that
    # start anywhere in the cell; 0 where `slight` is.
    outside: np.ndarray
    slight: np.ndarray  # (R, C) uint16: blocks that leave it by more than the slight level
    peak: np.ndarray  # (R, C) uint8: by how much the worst block leaves it
    ridge: np.ndarray  # (R, C) uint16: blocks on a ridge, where `low` is even
    excess: np.ndarray  # (R, C) int32: sum of means less the sum of the envelope's middles
    seen: np.ndarray  # (R, C) uint16: blocks that were looked at; others count nowhere above

    @classmethod
    def empty(cls, height: int, width: int) -> Counts:
        """For frames of H x W pixels."""
        shape = cell_grid(height, width)
        return cls(
            np.empty(shape, np.uint16), np.empty(shape, np.uint16), np.empty(shape, np.uint8),
            np.empty(shape, np.uint16), np.empty(shape, np.int32), np.empty(shape, np.uint16),
        )  # fmt: skip


def cell_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of cells; those at the far ends may reach beyond the frame."""
    return -(-height // CELL), -(-width // CELL)


def block_means(pixels: np.ndarray, gain: int = GAIN_ONE) -> np.ndarray:
    """(H, W) uint8 -> (H, W) uint8: at each pixel the mean of the block that starts there.

    Beyond the last row and column the edge is repeated. Times gain / GAIN_ONE: that is
    ((sum + 2) * gain) >> 16, at most 255; a gain of one rounds half up.
    """
    wide = np.pad(pixels, ((0, 1), (0, 1)), mode="edge").astype(np.uint16)
    sums = wide[:-1, :-1] + wide[1:, :-1] + wide[:-1, 1:] + wide[1:, 1:]
    if gain == GAIN_ONE:
        return ((sums + 2) >> 2).astype(np.uint8)
    raised: np.ndarray = ((sums + 2).astype(np.uint32) * np.uint32(gain)) >> 16
    means: np.ndarray = np.minimum(raised, 255).astype(np.uint8)
    return means


def ridges(means: np.ndarray) -> np.ndarray:
    """By how much blocks stand out from both their sides, as `scan_reference` sees it.

    Args:
        means: (H, W) uint8 as `block_means` gives them.

    Returns:
        (4, H, W) int16, for each of DIRECTIONS; 0 and less is no ridge.
    """
    return np.stack([_ridge(means.astype(np.int16), along, 2) for along in _ALONG])


def to_planes(values: np.ndarray, outside: int) -> np.ndarray:
    """Split values of blocks by where these start.

    Args:
        values: (H, W) uint8: at each pixel that of the block that starts there.
        outside: the value beyond the frame.

    Returns:
        (4, 32 R + 2 PAD, 32 C + 2 PAD) uint8: plane 2 (y % 2) + x % 2 holds the block that starts
        at (y, x) at [y // 2 + PAD, x // 2 + PAD].
    """
    height, width = values.shape
    rows, columns = cell_grid(height, width)
    planes = np.full((4, rows * BLOCKS + 2 * PAD, columns * BLOCKS + 2 * PAD), outside, np.uint8)
    for y in range(2):
        for x in range(2):
            part = values[y::2, x::2]
            planes[2 * y + x, PAD : PAD + part.shape[0], PAD : PAD + part.shape[1]] = part
    return planes


def check_frame(frame: np.ndarray) -> None:
    """Make sure that this is a frame.

    Raises:
        ValueError: not (H, W) uint8 of at least one cell, or its rows are not in one piece.
    """
    if frame.dtype != np.uint8 or frame.ndim != 2 or min(frame.shape) < CELL:
        raise ValueError(
            f"frame is {frame.dtype} of shape={frame.shape}; give (H, W) uint8, {CELL} or more each"
        )
    if frame.strides[1] != 1 or frame.strides[0] < frame.shape[1]:
        raise ValueError(f"frame has strides={frame.strides}; give rows in one piece")


def check_planes(name: str, planes: np.ndarray, frame: np.ndarray) -> None:
    """Make sure that planes are those of frames of this size."""
    rows, columns = cell_grid(*frame.shape)
    wanted = (4, rows * BLOCKS + 2 * PAD, columns * BLOCKS + 2 * PAD)
    if planes.dtype != np.uint8 or planes.shape != wanted or not planes.flags.c_contiguous:
        raise ValueError(
            f"{name} is {planes.dtype} of shape={planes.shape}; give {wanted} uint8, in C order"
        )


def check_shifts(name: str, shifts: np.ndarray, wanted: tuple[int, ...], limit: int) -> None:
    """Make sure that shifts are what can be read."""
    if shifts.dtype != np.int32 or shifts.shape != wanted or not shifts.flags.c_contiguous:
        raise ValueError(
            f"{name} is {shifts.dtype} of shape={shifts.shape}; give {wanted} int32, in C order"
        )
    if shifts.size and not -limit <= shifts.min() <= shifts.max() <= limit:
        raise ValueError(f"{name} has {shifts.min()}..{shifts.max()} px, beyond {limit}")


def check_gain(gain: int) -> None:
    """Make sure that a gain is one that 16 bits hold."""
    if not 0 <= gain < 1 << 16:
        raise ValueError(f"gain={gain} is not in 0..65535; {GAIN_ONE} is one")


def check_levels(levels: tuple[int, int], contrasts: Sequence[int]) -> None:
    """Make sure that thresholds are grey levels."""
    if len(levels) != 2 or not 0 <= levels[0] <= levels[1] <= 255:
        raise ValueError(f"levels={levels} are not (slight, strong) in 0..255, the second no less")
    if len(contrasts) != len(DIRECTIONS) or not 0 <= min(contrasts) <= max(contrasts) <= 255:
        raise ValueError(f"contrasts={contrasts} are not one in 0..255 for each of {DIRECTIONS}")


def scan_reference(
    frame: np.ndarray, low: np.ndarray, high: np.ndarray, shifts: np.ndarray,
    levels: tuple[int, int], contrasts: Sequence[int], gain: int = GAIN_ONE,
) -> Counts:  # fmt: skip
    """Count in each cell of a frame what does not look like a good part.

    A block of the frame that starts at (y, x), with even y and x, is compared with the envelope at
    (y - dy, x - dx), where (dy, dx) is its cell's shift. Where that is 0..255, and where a block is
    not wholly in the frame, nothing is looked at.
    A block is on a ridge if its mean, smoothed over 3x3 blocks, is above, or below, both those two
    blocks to the sides by more than the direction's contrast. An odd `low` says that good parts
    have ridges there, which are not counted.

    Args:
        frame: (H, W) uint8; rows in one piece.
        low: the envelope of block means, as `to_planes` gives it.
        high: the same, its upper side.
        shifts: (R, C, 2) int32: pixels (y, x) by which the part lies further in the frame than in
            the envelope.
        levels: by how many grey levels a block may leave the envelope: slightly; and strongly. A
            mark of 2 px fills no block that starts at even pixels, so where one is slightly
            outside, all blocks are looked at.
        contrasts: by how many grey levels a ridge stands out, for each of DIRECTIONS.
        gain: that the frame's block means are taken times, before all else; see `block_means`.

    Raises:
        ValueError: a shape, a type or a value is none of these.
    """
    check_frame(frame)
    check_planes("low", low, frame)
    check_planes("high", high, frame)
    rows, columns = cell_grid(*frame.shape)
    check_shifts("shifts", shifts, (rows, columns, 2), MAX_SHIFT)
    check_levels(levels, contrasts)
    check_gain(gain)
    means, lowest, highest = _compared(frame, low, high, shifts, (0, 0), gain)
    leaves = _leaving(means, lowest, highest)
    slight = _per_cell(leaves > levels[0])
    outside = np.zeros_like(slight)
    for phase in ((0, 0), (0, 1), (1, 0), (1, 1)):
        outside += _per_cell(
            _leaving(*_compared(frame, low, high, shifts, phase, gain)) > levels[1]
        )
    seen = (lowest > 0) | (highest < 255)
    middle = (lowest + highest + 1) >> 1
    ridge = np.zeros(means.shape, bool)
    for along, contrast in zip(_ALONG, contrasts, strict=True):
        ridge |= _ridge(means, along, 1) > contrast
    return Counts(
        outside=np.where(slight > 0, outside, 0).astype(np.uint16),
        slight=slight.astype(np.uint16),
        peak=leaves.reshape(rows, BLOCKS, columns, BLOCKS).max((1, 3)).astype(np.uint8),
        ridge=_per_cell(ridge & seen & (lowest % 2 == 0)).astype(np.uint16),
        excess=_per_cell(np.where(seen, means - middle, 0)).astype(np.int32),
        seen=_per_cell(seen).astype(np.uint16),
    )


def match_reference(
    frame: np.ndarray,
    reference: np.ndarray,
    patches: np.ndarray,
    base: np.ndarray,
    radius: int,
    gain: int = GAIN_ONE,
) -> tuple[np.ndarray, np.ndarray]:
    """How badly cells of a part fit into a frame, at each shift of a square.

    Args:
        frame: (H, W) uint8; rows in one piece.
        reference: block means of a good part, as `to_planes` gives them.
        patches: (P, 2) int32: cells (row, column) of the reference.
        base: (P, 2) int32: pixels (y, x) by which each is believed to lie further in the frame.
        radius: pixels around `base` to try.
        gain: that the frame's block means are taken times; see `block_means`.

    Returns:
        (P, 2 radius + 1, 2 radius + 1) uint32: sum of absolute differences of block means at the
        shift base + (i - radius, j - radius); 0 everywhere if the patch is not wholly in the frame.
        (P,) uint32: sum of the frame's block means at `base`; 0 likewise.

    Raises:
        ValueError: a shape, a type or a value is none of these.
    """
    check_match(frame, reference, patches, base, radius)
    check_gain(gain)
    height, width = frame.shape
    size = 2 * radius + 1
    found = np.zeros((len(patches), size, size), np.uint32)
    brightness = np.zeros(len(patches), np.uint32)
    for k, ((row, column), (dy, dx)) in enumerate(zip(patches, base, strict=True)):
        y, x = CELL * row + dy, CELL * column + dx
        if y < 0 or x < 0 or y + CELL > height or x + CELL > width:
            continue
        means = block_means(frame[y : y + CELL, x : x + CELL], gain)[::2, ::2].astype(np.int32)
        brightness[k] = means.sum()
        for i in range(size):
            for j in range(size):
                start = (CELL * row - (i - radius), CELL * column - (j - radius))
                window = _window(reference, *start).astype(np.int32)
                found[k, i, j] = np.abs(means - window).sum()
    return found, brightness


def check_match(
    frame: np.ndarray, reference: np.ndarray, patches: np.ndarray, base: np.ndarray, radius: int
) -> None:
    """Make sure that patches can be matched."""
    check_frame(frame)
    check_planes("reference", reference, frame)
    if not 0 <= radius <= MAX_SHIFT:
        raise ValueError(f"radius={radius} is not in 0..{MAX_SHIFT} px")
    for name, places in (("patches", patches), ("base", base)):
        if places.dtype != np.int32 or places.shape != (len(patches), 2):
            raise ValueError(
                f"{name} is {places.dtype} of shape={places.shape}; give ({len(patches)}, 2) int32"
            )
        if not places.flags.c_contiguous:
            raise ValueError(f"{name} has strides={places.strides}; give it in C order")
    if len(patches) and (patches.min() < 0 or (patches.max(0) >= cell_grid(*frame.shape)).any()):
        raise ValueError(f"patches reach {patches.min(0)}..{patches.max(0)}, outside the cells")


def _compared(
    frame: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    shifts: np.ndarray,
    phase: tuple[int, int],
    gain: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of the blocks that start at (2 y + phase[0], 2 x + phase[1]), and their envelope."""
    rows, columns, _ = shifts.shape
    down, right = rows * CELL - frame.shape[0], columns * CELL - frame.shape[1]
    means = block_means(np.pad(frame, ((0, down + 1), (0, right + 1)), mode="edge"), gain)
    means = means[phase[0] : rows * CELL + phase[0] : 2, phase[1] : columns * CELL + phase[1] : 2]
    moved = shifts - np.array(phase)
    lowest, highest = (_shifted(planes, moved).astype(np.int32) for planes in (low, high))
    rows_in, columns_in = ((frame.shape[axis] - phase[axis]) // 2 for axis in range(2))
    lowest[rows_in:], lowest[:, columns_in:] = 0, 0
    highest[rows_in:], highest[:, columns_in:] = 255, 255
    return means.astype(np.int32), lowest, highest


def _leaving(means: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    leaves: np.ndarray = np.maximum(np.maximum(means - highest, lowest - means), 0)
    return leaves


def _window(planes: np.ndarray, y: int, x: int) -> np.ndarray:
    """The blocks of a cell that starts at pixel (y, x) of the reference."""
    top, left = y // 2 + PAD, x // 2 + PAD
    return planes[2 * (y % 2) + x % 2, top : top + BLOCKS, left : left + BLOCKS]


def _shifted(planes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    rows, columns, _ = shifts.shape
    return np.block([
        [_window(planes, CELL * r - shifts[r, c, 0], CELL * c - shifts[r, c, 1])
         for c in range(columns)]
        for r in range(rows)
    ])  # fmt: skip


def _ridge(means: np.ndarray, along: tuple[int, int], step: int) -> np.ndarray:
    """By how much each block stands out; `step` is from a block's place to its neighbour's."""
    across = _REACH * step
    wide = np.pad(means, 2 * step + across, mode="edge")

    def at(image: np.ndarray, y: int, x: int, edge: int) -> np.ndarray:
        height, width = image.shape
        return image[edge + y : height - edge + y, edge + x : width - edge + x]

    def smoothed(image: np.ndarray, y: int, x: int) -> np.ndarray:
        ends = (at(image, -y, -x, step) + at(image, y, x, step) + 1) >> 1
        return np.asarray((ends + at(image, 0, 0, step) + 1) >> 1)

    line = smoothed(smoothed(wide, 0, step), step, 0)
    y, x = across * along[1], -across * along[0]
    one, other = at(line, y, x, across), at(line, -y, -x, across)
    here = at(line, 0, 0, across)
    bright, dark = here - np.maximum(one, other), np.minimum(one, other) - here
    stands: np.ndarray = np.maximum(bright, dark)
    return stands


def _per_cell(blocks: np.ndarray) -> np.ndarray:
    rows, columns = blocks.shape[0] // BLOCKS, blocks.shape[1] // BLOCKS
    counts: np.ndarray = blocks.reshape(rows, BLOCKS, columns, BLOCKS).sum((1, 3), dtype=np.int64)
    return counts
