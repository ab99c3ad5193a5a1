"""One simulated patient on one simulated scanner, with what readers marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.kit import Split
from kits.medical.data.case import Case
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_anatomy import Anatomy, build_anatomy
from kits.medical.data.phantom_ct import scan
from kits.medical.data.phantom_field import Axes
from kits.medical.data.phantom_nodules import SPLITS, PlacedNodule, place_nodules
from kits.medical.data.phantom_noise import Acquisition
from kits.medical.data.phantom_thorax import Build, Thorax, build_thorax
from kits.medical.data.phantom_tissue import Chest
from kits.medical.geometry import Grid, Volume

# Indices grow to the head, to the back, to the left.
AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


SECOND_PHASE = 0.37  # slices by which a second scan of a patient is shifted


@dataclass(frozen=True)
class Phantom:
    """A case with all that it was made from."""

    case: Case
    look: Acquisition
    thorax: Thorax
    anatomy: Anatomy
    placed: tuple[PlacedNodule, ...]


def case_name(seed: int, split: Split, number: int) -> str:
    """How a simulated patient is called, everywhere."""
    return f"PHANTOM-{seed}-{split}-{number:04d}"


def make_phantom(
    cfg: PhantomData, split: Split, number: int, *, growth: float | None = None
) -> Phantom:
    """Simulate a patient and a scan: the same arguments give the same bytes.

    Args:
        cfg: seed, spacing and field.
        split: whose nodules may appear.
        number: of the patient in the split.
        growth: of a second scan of the same patient: every other nodule, from the first on, has
            this many times its volume. The slices lie elsewhere, and the noise is new.
    """
    seed = (cfg.seed, SPLITS.index(split), number)
    rng = np.random.default_rng(seed)
    build = Build.draw(rng)
    thorax = build_thorax(build, rng)
    anatomy = build_anatomy(thorax, rng)
    look = Acquisition.draw(rng, pixel_mm=cfg.pixel_mm, slice_mm=cfg.slice_mm)
    axes = _field(cfg, thorax, look, rng)
    box = np.array([[axis[0] for axis in axes], [axis[-1] for axis in axes]])
    name = case_name(*seed[:1], split, number)
    placed = place_nodules(thorax, anatomy, box, split, rng)
    if growth is not None:
        placed = tuple(one if k % 2 else one.grown(growth) for k, one in enumerate(placed))
        axes = (axes[0] + SECOND_PHASE * look.spacing_mm[0], *axes[1:])
        seed = (*seed, 2)
    hu = scan(Chest(thorax, anatomy, placed), axes, look, seed)
    truths = tuple(one.truth(axes, f"{name}-{k + 1}") for k, one in enumerate(placed))
    lungs = thorax.lungs.on(axes) > 0
    for truth in truths:
        lungs[truth.window] |= truth.votes > 0
    origin = tuple(float(axis[0]) for axis in axes[::-1])
    grid = Grid(hu.shape, look.spacing_mm, origin, AXES)  # type: ignore[arg-type]
    case = Case(name, name, Volume(grid, hu), truths, "scan", is_phantom=True, lungs=lungs)
    return Phantom(case, look, thorax, anatomy, placed)


def _field(cfg: PhantomData, thorax: Thorax, look: Acquisition, rng: np.random.Generator) -> Axes:
    """Which part of the patient is scanned: both lungs in the plane, a slab of them in height."""
    build, (step, pixel, _) = thorax.build, look.spacing_mm
    margin = rng.uniform(6, 22)
    if cfg.shape is not None:
        count, height, width = cfg.shape
        middle = build.height_mm / 2
    else:
        height = 8 * round((2 * build.half_depth_mm + 2 * margin) / pixel / 8)
        width = 8 * round((2 * build.half_width_mm + 2 * margin) / pixel / 8)
        count = min(cfg.max_slices, int(cfg.max_height_mm / step))
        room = max(0.0, build.height_mm - 10 - count * step)
        middle = count * step / 2 + rng.uniform(0, room)
    # The first slice lies anywhere between two of the body's own positions.
    phase = rng.uniform(0, step)
    z = middle + phase + (np.arange(count) - (count - 1) / 2) * step
    y = (np.arange(height) - (height - 1) / 2) * pixel + 3
    x = (np.arange(width) - (width - 1) / 2) * pixel
    return z, y, x
