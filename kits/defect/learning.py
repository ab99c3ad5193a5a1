"""From images of good parts to a recipe: envelope, limits, and what they cannot promise.

Dimensions: N good frames; H, W pixels; R, C cells. Each limit is chosen on parts that the envelope
in question was not learned from: the parts are dealt into folds, and each fold is judged by an
envelope of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.triage import DIRECTIONS, GAIN_ONE, block_means, cell_grid, scan, to_planes
from kits.defect.line.envelope import OFF, Envelope, RidgeMap, align, learn_envelope
from kits.defect.line.recipe import Limits, Recipe
from kits.defect.line.registration import Placement, Registration

LEAST_IMAGES = 4
ADVISED_IMAGES = 20
MOST_FOLDS = 4
DEVIATIONS = 3.0
LEVELS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 112, 128,
          160, 192, 255)  # fmt: skip
RIDGE_BLOCKS = 8
MOST_OUTSIDE_BLOCKS = 4
# Channels that share what may be flagged: far outside, slightly outside, ridges, stains.
CHANNELS = 4
# Of the cells of good parts, how many may be searched for marks between the blocks.
SEARCHED_SHARE = 0.02
# A part is no part of this product if it fits this much worse than the worst good one.
MISMATCH_TIMES, MISMATCH_LEVELS = 2.0, 3.0
LEAST_STAIN_LEVELS = 0.5


@dataclass(frozen=True)
class LearnSettings:
    """What a person says of a product."""

    product: str
    mm_per_px: float
    smallest_defect_mm: float
    # Share of the cells of good parts that may be flagged.
    flagged_share: float = 0.002

    @property
    def outside_blocks(self) -> int:
        """Blocks that the smallest defect fills, wherever they start; half of them is enough."""
        side = self.smallest_defect_mm / self.mm_per_px - 1
        return int(np.clip(side * side / 2, 1, MOST_OUTSIDE_BLOCKS))


@dataclass(frozen=True)
class Aligned:
    """Good frames, and what they show where the template has it."""

    frames: Sequence[np.ndarray]
    placements: Sequence[Placement]
    template: np.ndarray  # (H, W) uint8: their mean
    blocks: np.ndarray  # (N, H, W) uint8
    is_seen: np.ndarray  # (N, H, W) bool


def learn_recipe(frames: Mapping[str, np.ndarray], settings: LearnSettings) -> Recipe:
    """Learn a recipe.

    Args:
        frames: name -> (H, W) uint8 of a good part, all of one size.
        settings: of the product.

    Raises:
        ValueError: too few frames, of different sizes, or one that does not fit the others.
    """
    _check(frames)
    aligned = align_frames(frames)
    folds = np.arange(len(frames)) % min(MOST_FOLDS, len(frames) // 2)
    envelopes = _envelopes(aligned, folds)
    wider = [envelope.widen() for envelope in envelopes]
    candidates = [
        _learn(aligned, folds, settings, envelopes, widened=False),
        _learn(aligned, folds, settings, wider, widened=True),
    ]
    best = min(candidates, key=lambda learned: learned.contrast_levels[0])
    height, width = aligned.template.shape
    return Recipe(
        product=settings.product,
        width_px=width,
        height_px=height,
        mm_per_px=settings.mm_per_px,
        smallest_defect_mm=settings.smallest_defect_mm,
        limits=best.limits,
        arrays={
            "template": aligned.template,
            "low": best.envelope.low,
            "high": best.envelope.high,
            "stain_levels": best.stain_levels,
        },
        notes=_notes(aligned, settings, best),
    )


def align_frames(frames: Mapping[str, np.ndarray]) -> Aligned:
    """Bring frames to where the first one has its part.

    Raises:
        ValueError: one fits much worse than the others.
    """
    images = list(frames.values())
    first = Registration(images[0])
    placements = [first.locate(image) for image in images]
    _check_fit(list(frames), placements)
    total = np.zeros(images[0].shape, np.float32)
    count = np.zeros(images[0].shape, np.float32)
    for image, placement in zip(images, placements, strict=True):
        pixels, is_seen = align(image, placement.shifts)
        total += pixels * (is_seen * np.float32(placement.gain / GAIN_ONE))
        count += is_seen
    mean = np.where(count > 0, total / np.maximum(count, 1), images[0])
    template = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
    exact = Registration(template)
    placements = [exact.locate(image) for image in images]
    blocks = np.empty((len(images), *template.shape), np.uint8)
    seen = np.empty(blocks.shape, bool)
    for k, (image, placement) in enumerate(zip(images, placements, strict=True)):
        blocks[k], seen[k] = align(block_means(image, placement.gain), placement.shifts)
    return Aligned(images, placements, template, blocks, seen)


@dataclass(frozen=True)
class Learned:
    """An envelope with its limits."""

    envelope: Envelope
    limits: Limits
    stain_levels: np.ndarray  # (R, C) float32
    is_widened: bool
    # Of cells of good parts that the envelope was not learned from, by each channel and by any.
    flagged: Mapping[str, float]
    # Grey levels that a block has to be off to be far outside: median and 95 % of the frame.
    contrast_levels: tuple[float, float]
    open_share: float  # of the frame, where nothing is looked at


def _learn(
    aligned: Aligned,
    folds: np.ndarray,
    settings: LearnSettings,
    envelopes: Sequence[Envelope],
    *,
    widened: bool,
) -> Learned:
    share = settings.flagged_share / CHANNELS
    *held_out, envelope = envelopes
    judges = [(to_planes(one.low, 0), to_planes(one.high, 255)) for one in held_out]
    everything = to_planes(envelope.high, 255)
    ridge_map = RidgeMap.of(aligned.template)

    def count(name: str, levels: tuple[int, int]) -> np.ndarray:
        counts = []
        for frame, placed, fold in zip(aligned.frames, aligned.placements, folds, strict=True):
            bounds = judges[fold]
            found = scan(
                frame, *bounds, placed.shifts, levels=levels, contrasts=off, gain=placed.gain
            )
            counts.append(getattr(found, name))
        return np.stack(counts)

    def count_ridges(contrasts: Sequence[int]) -> np.ndarray:
        bounds = to_planes(ridge_map.mark(envelope, contrasts).low, 0), everything
        counts = []
        for frame, placed in zip(aligned.frames, aligned.placements, strict=True):
            found = scan(
                frame, *bounds, placed.shifts,
                levels=(OFF, OFF), contrasts=contrasts, gain=placed.gain,
            )  # fmt: skip
            counts.append(found.ridge)
        return np.stack(counts)

    off = (OFF,) * len(DIRECTIONS)
    blocks = settings.outside_blocks
    outside, strong = _least(
        lambda level: count("outside", (level, level)) >= blocks, LEVELS, share
    )
    # Where a block is slightly outside all blocks are looked at, which takes time.
    searched = [level for level in (*LEVELS, strong) if max(strong // 2, 1) <= level <= strong]
    _, weak = _least(
        lambda level: count("slight", (level, strong)) > 0, sorted(searched), SEARCHED_SHARE
    )
    slight = count("slight", (weak, strong))
    slight_blocks = int(np.quantile(slight, 1 - share, method="higher")) + 1
    contrasts = []
    for at in range(len(DIRECTIONS)):

        def has_ridge(contrast: int, at: int = at) -> np.ndarray:
            alone = tuple(contrast if k == at else OFF for k in range(len(DIRECTIONS)))
            return count_ridges(alone) >= RIDGE_BLOCKS

        contrasts.append(_least(has_ridge, LEVELS[1:], share / len(DIRECTIONS))[1])
    # Together they may add up.
    while (ridged := count_ridges(contrasts) >= RIDGE_BLOCKS).mean() > share and min(
        contrasts
    ) < OFF:
        contrasts = [next((level for level in LEVELS if level > one), OFF) for one in contrasts]
    stains = count("excess", (OFF, OFF)) / np.maximum(count("seen", (OFF, OFF)), 1)
    off_stains = np.abs(_centred(stains, folds))
    stain_levels = max(LEAST_STAIN_LEVELS, float(np.quantile(off_stains, 1 - share)) * 1.01)
    flags = {
        "outside": outside,
        "slight": slight >= slight_blocks,
        "ridge": ridged,
        "stain": off_stains >= stain_levels,
    }
    flags["any"] = np.logical_or.reduce(list(flags.values()))
    half_width = (envelope.high.astype(np.float32) - envelope.low) / 2
    is_open = (envelope.low == 0) & (envelope.high == 255)
    needed = half_width[~is_open] + strong
    worst_fit = max(placement.mismatch for placement in aligned.placements)
    return Learned(
        envelope=ridge_map.mark(envelope, contrasts),
        limits=Limits(
            outside_blocks=blocks,
            outside_levels=strong,
            slight_blocks=slight_blocks,
            slight_levels=weak,
            ridge_blocks=RIDGE_BLOCKS,
            ridge_contrasts=tuple(contrasts),
            stain_levels=stain_levels,
            mismatch_levels=MISMATCH_TIMES * worst_fit + MISMATCH_LEVELS,
        ),
        stain_levels=stains.mean(0).astype(np.float32),
        is_widened=widened,
        flagged={name: float(flag.mean()) for name, flag in flags.items()},
        contrast_levels=(float(np.median(needed)), float(np.quantile(needed, 0.95))),
        open_share=float(is_open.mean()),
    )


def _envelopes(aligned: Aligned, folds: np.ndarray) -> list[Envelope]:
    """Without each fold, and of all."""
    chosen = [folds != fold for fold in range(folds.max() + 1)] + [folds >= 0]
    return [learn_envelope(aligned.blocks[k], aligned.is_seen[k], DEVIATIONS) for k in chosen]


def _least(
    flag: Callable[[int], np.ndarray], levels: Sequence[int], share: float
) -> tuple[np.ndarray, int]:
    """The lowest level that flags no more than a share, by halving; and what it flags."""
    low, high = 0, len(levels) - 1
    found = flag(levels[high])
    while low < high:
        middle = (low + high) // 2
        flagged = flag(levels[middle])
        if flagged.mean() <= share:
            high, found = middle, flagged
        else:
            low = middle + 1
    return found, levels[high]


def _centred(stains: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(N, R, C) by how much each cell is off the mean of the other folds, and of its frame."""
    known = [stains[folds != fold].mean(0) for fold in range(folds.max() + 1)]
    off = stains - np.stack(known)[folds]
    return off - np.median(off, (1, 2), keepdims=True)


def _check(frames: Mapping[str, np.ndarray]) -> None:
    if len(frames) < LEAST_IMAGES:
        raise ValueError(
            f"images has {len(frames)} good parts, fewer than {LEAST_IMAGES}; give {ADVISED_IMAGES}"
        )
    first, *others = frames
    for name in others:
        if frames[name].shape != frames[first].shape:
            raise ValueError(
                f"{name} has shape={frames[name].shape}, {first} has {frames[first].shape}; "
                "give images of one camera"
            )


def _check_fit(names: Sequence[str], placements: Sequence[Placement]) -> None:
    found = np.array([placement.mismatch for placement in placements[1:]])
    limit = MISMATCH_TIMES * float(np.median(found)) + MISMATCH_LEVELS
    bad = [f"{name} ({off:.1f})" for name, off in zip(names[1:], found, strict=True) if off > limit]
    if bad:
        raise ValueError(
            f"{', '.join(bad)} differ from {names[0]} by more than {limit:.1f} grey levels, the "
            "others do not; take away what is no good part of this product"
        )


def _notes(aligned: Aligned, settings: LearnSettings, learned: Learned) -> dict[str, Any]:
    shifts = np.array([placement.shift_px for placement in aligned.placements])
    rows, columns = cell_grid(*aligned.template.shape)
    number, cells = len(aligned.frames), len(aligned.frames) * rows * columns
    median, most = learned.contrast_levels
    defect_px = settings.smallest_defect_mm / settings.mm_per_px
    cannot = [
        f"a mark of {settings.smallest_defect_mm:g} mm ({defect_px:.1f} px) that differs by less "
        f"than {median:.0f} grey levels (in 5 % of the frame {most:.0f}) is found as a ridge or a "
        "stain or not at all",
        f"of cells of good parts {learned.flagged['any']:.2%} were flagged "
        f"({cells} cells of {number} parts); another batch of material may differ more",
    ]
    if number < ADVISED_IMAGES:
        cannot.append(f"{number} good parts are fewer than {ADVISED_IMAGES}: the limits are rough")
    if learned.open_share > 0.01:
        cannot.append(f"{learned.open_share:.1%} of the frame is not looked at: too few parts")
    if learned.flagged["any"] > settings.flagged_share:
        cannot.append(f"flagged_share={settings.flagged_share:g} was not reached")
    return {
        "images": number,
        "flagged": dict(learned.flagged),
        "contrast_levels": {"median": median, "95 %": most},
        "is_widened": learned.is_widened,
        "shift_px": {"least": shifts.min(0).tolist(), "most": shifts.max(0).tolist()},
        "mismatch_levels": max(placement.mismatch for placement in aligned.placements),
        "open_share": learned.open_share,
        "cannot_promise": cannot,
    }
