"""Frames of a recipe's own part, as a camera takes them: shifted, noisy, some with a defect."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kits.defect.line.recipe import Recipe

# Of the envelope's width, the deviation of the noise on a part.
NOISE_SHARE = 0.15
MAX_SHIFT_PX = 2
BAD_SHARE = 0.25
# Grey levels by which a defect differs from its surroundings, at least and at most.
CONTRAST = (30.0, 70.0)
# Of a defect, as multiples of the smallest one that the recipe promises to find.
WIDTHS, LENGTHS = (1.0, 3.0), (8.0, 60.0)


@dataclass(frozen=True)
class Truth:
    """A defect that was drawn: a line with round ends, dark or bright."""

    frame: int
    start_px: tuple[float, float]  # x, y
    end_px: tuple[float, float]
    width_px: float
    levels: float


def simulate(
    recipe: Recipe,
    number: int,
    folder: Path,
    *,
    seed: int = 0,
    on_frame: Callable[[], None] = lambda: None,
) -> tuple[Path, list[Truth]]:
    """Make frames of a part and write them to frames.npy, the defects on them to truth.json.

    Args:
        recipe: with a template and an envelope.
        number: of frames.
        folder: where to.
        seed: of all chance.
        on_frame: called after each.
    Returns:
        the file of frames, (n, H, W) uint8; the defects.
    Raises:
        ValueError: the recipe has not learned what its part looks like.
    """
    missing = sorted({"template", "low", "high"} - set(recipe.arrays))
    if missing:
        raise ValueError(
            f"source=simulator draws the recipe's own part, and recipe {recipe.product!r} has no "
            f"{missing[0]!r}; learn it from images (python -m kits.defect.learn)"
        )
    random = np.random.default_rng(seed)
    path = folder / "frames.npy"
    shape = (number, recipe.height_px, recipe.width_px)
    frames = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    width = recipe.arrays["high"].astype(np.float32) - recipe.arrays["low"]
    deviation = np.clip(NOISE_SHARE * width, 0.5, 4.0)
    truth: list[Truth] = []
    for at in range(number):
        noise = random.standard_normal(shape[1:], dtype=np.float32) * deviation
        part = recipe.arrays["template"].astype(np.float32) + noise
        if random.random() < BAD_SHARE:
            truth.append(_draw(part, recipe, at, random))
        shift = random.integers(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1, 2)
        frames[at] = np.clip(np.rint(_moved(part, *shift.tolist())), 0, 255)
        on_frame()
    frames.flush()
    content = json.dumps([asdict(one) for one in truth], indent=1)
    (folder / "truth.json").write_text(content, encoding="utf-8")
    return path, truth


def _draw(part: np.ndarray, recipe: Recipe, at: int, random: np.random.Generator) -> Truth:
    smallest_px = recipe.smallest_defect_mm / recipe.mm_per_px
    height, width = part.shape
    length = smallest_px * random.uniform(*LENGTHS)
    thickness = max(1.0, smallest_px * random.uniform(*WIDTHS))
    angle = random.uniform(0, np.pi)
    step = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    room = np.abs(step) + thickness + 4
    centre = np.array([random.uniform(low, max(low, size - low))
                       for low, size in zip(room, (width, height), strict=True)])  # fmt: skip
    levels = float(random.uniform(*CONTRAST) * random.choice([-1, 1], p=[0.7, 0.3]))
    start, end = centre - step, centre + step
    low = np.maximum(np.minimum(start, end) - thickness - 2, 0).astype(int)
    high = np.minimum(np.maximum(start, end) + thickness + 3, (width, height)).astype(int)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    along = end - start
    share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(along @ along, 1e-6)
    share = np.clip(share, 0, 1)
    off = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    # An edge of one pixel, as optics leave it.
    part[low[1] : high[1], low[0] : high[0]] += levels * np.clip(thickness / 2 + 0.5 - off, 0, 1)
    return Truth(at, tuple(start.tolist()), tuple(end.tolist()), thickness, levels)


def _moved(part: np.ndarray, right: int, down: int) -> np.ndarray:
    """The part moved within the frame; what comes in at the border repeats it."""
    rows = np.clip(np.arange(part.shape[0]) - down, 0, part.shape[0] - 1)
    columns = np.clip(np.arange(part.shape[1]) - right, 0, part.shape[1] - 1)
    return part[np.ix_(rows, columns)]
