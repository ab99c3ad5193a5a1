"""How large a pixel is, from an image of a regular target. Numpy alone.

A grid repeats itself. The picture's likeness with itself, moved, peaks wherever the grid falls onto
itself: at whole sums of two steps. They are measured at the nearest peaks, then at ever farther
ones, where an error counts less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_PX = 2048  # of a side that is used, around the middle
LEAST_LIKENESS = 0.25  # of a peak
LEAST_STEP_PX = 4
LEAST_PERIODS = 4
MOST_UNEVEN = 0.02  # between the two steps


@dataclass(frozen=True)
class Calibration:
    """What a target says."""

    mm_per_px: float
    steps_px: tuple[float, float]  # lengths of the target's two steps
    turn_deg: float  # of the target against the rows


def calibrate(pixels: np.ndarray, kind: str, pitch_mm: float) -> Calibration:
    """Measure the size of a pixel.

    Args:
        pixels: (H, W) of a target that fills the middle of the picture.
        kind: "dots" in a square grid, or "checker".
        pitch_mm: between the centres of two dots; the side of a square.

    Raises:
        ValueError: no grid is to be seen, or its two steps differ: the camera is tilted.
    """
    likeness = _likeness(pixels)
    one, other = _steps(likeness)
    lengths = tuple(float(np.hypot(*step)) for step in (one, other))
    uneven = abs(lengths[0] - lengths[1]) / max(lengths)
    if uneven > MOST_UNEVEN:
        raise ValueError(
            f"target has steps of {lengths[0]:.2f} and {lengths[1]:.2f} px, {uneven:.1%} apart, "
            f"more than {MOST_UNEVEN:.0%}; put the camera upright over the target"
        )
    # A checkerboard repeats itself along its diagonals.
    step_mm = pitch_mm * (np.sqrt(2) if kind == "checker" else 1)
    turn = np.degrees(np.arctan2(one[0], one[1])) - (45 if kind == "checker" else 0)
    turn_deg = float((turn + 45) % 90 - 45)
    return Calibration(float(2 * step_mm / sum(lengths)), (lengths[0], lengths[1]), turn_deg)


def _likeness(pixels: np.ndarray) -> np.ndarray:
    """Likeness with itself for movements of up to a half; none is in the middle, and has 1."""
    height, width = (min(side, MOST_PX) for side in pixels.shape)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    part = pixels[top : top + height, left : left + width].astype(np.float64)
    part -= part.mean()
    size = (2 * height, 2 * width)
    power = np.abs(np.fft.rfft2(part, size)) ** 2
    sums = np.fft.fftshift(np.fft.irfft2(power, size))
    # Of half of the movements at least half of the picture is left.
    sums = sums[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
    rows = height - np.abs(np.arange(height) - (height - height // 2))
    columns = width - np.abs(np.arange(width) - (width - width // 2))
    likeness = sums / (rows[:, None] * columns)
    return likeness / max(likeness.max(), 1e-12)


def _steps(likeness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre = np.array(likeness.shape) - np.array(likeness.shape) // 2
    inner = likeness[1:-1, 1:-1]
    height, width = likeness.shape
    is_peak = inner >= LEAST_LIKENESS
    for y in range(3):
        for x in range(3):
            is_peak &= inner >= likeness[y : height - 2 + y, x : width - 2 + x]
    moves = np.argwhere(is_peak) + 1 - centre
    lengths = np.hypot(*moves.T)
    is_far = lengths >= LEAST_STEP_PX
    moves, lengths = moves[is_far], lengths[is_far]
    order = np.argsort(lengths)
    moves, lengths = moves[order], lengths[order]
    found = [moves[0]] if len(moves) else []
    for move in moves[1:]:
        crossing = abs(found[0][0] * move[1] - found[0][1] * move[0])
        if crossing > 0.5 * np.hypot(*found[0]) * np.hypot(*move):
            found.append(move)
            break
    reach = min(centre)
    if len(found) < 2 or np.hypot(*found[1]) * LEAST_PERIODS / 2 > reach:
        raise ValueError(
            "target shows no grid that repeats itself; let it fill the picture, sharp, evenly lit"
        )
    return _refine(likeness, centre, found[0]), _refine(likeness, centre, found[1])


def _refine(likeness: np.ndarray, centre: np.ndarray, step: np.ndarray) -> np.ndarray:
    """A step, from the peaks 1, 2, 4, ... steps away, as far as there are any."""
    step, times = _top(likeness, centre + step) - centre, 1
    while True:
        guess = centre + 2 * times * step
        if (np.abs(guess - centre) > centre * 0.9 - 3).any():
            return step
        peak = _top(likeness, np.rint(guess).astype(int))
        if np.abs(peak - guess).max() > 2:
            return step
        times *= 2
        step = (peak - centre) / times


def _top(likeness: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The peak within two pixels, to a fraction of one."""
    window = likeness[near[0] - 2 : near[0] + 3, near[1] - 2 : near[1] + 3]
    y, x = np.array(divmod(int(window.argmax()), 5)) + near - 2
    here = likeness[y, x]
    found = np.array([y, x], np.float64)
    for axis, (before, after) in enumerate(
        ((likeness[y - 1, x], likeness[y + 1, x]), (likeness[y, x - 1], likeness[y, x + 1]))
    ):
        bend = before - 2 * here + after
        if bend < 0:
            found[axis] += 0.5 * (before - after) / bend
    return found
