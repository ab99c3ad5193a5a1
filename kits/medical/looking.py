"""What a network makes of cases: findings of scans, outlines of nodules. No torch.

Masks are judged where the network was told the place, so that they are comparable between scans and
patches; what it finds by itself is judged by FROC, and once more by the masks of what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kits.medical.data.case import Case, Cases, TrueNodule
from kits.medical.data.votes import readers_of
from kits.medical.findings import TEXTURES, Finding, Findings
from kits.medical.geometry import Shape, Window
from kits.medical.infer.find import find_nodules, segment_at
from kits.medical.infer.settings import Network, Settings
from kits.medical.metrics.baselines import bright_component
from kits.medical.metrics.dice import consensus_of
from kits.medical.metrics.froc import ScanResult, Target, match
from kits.medical.metrics.human_normalised import Outlines
from kits.medical.patch import predict_patch
from kits.medical.sampling import centre_of, texture_class
from kits.medical.stages import Told, tell_nobody

LEAST_SCORE = 0.01  # low enough for the curve's end at 8 false positives per scan
INCLUDED_SHARE = 0.75  # of a source's readers, as LUNA16 asks for 3 of 4
PICTURE_MM = 22.0  # around a nodule, on each side


@dataclass(frozen=True)
class Looker:
    """A network with what its run knows of it."""

    network: Network
    multiple: int = 16
    mask_threshold: float = 0.5
    # Patches only: what the network was trained on; the mean over four mirror images.
    sample: Shape = (24, 96, 96)
    is_mirrored: bool = False

    def settings(self) -> Settings:
        """How it is asked for everything it might see."""
        return Settings(
            multiple=self.multiple,
            threshold=LEAST_SCORE,
            candidate_threshold=LEAST_SCORE,
            mask_threshold=self.mask_threshold,
        )


@dataclass(frozen=True)
class Drawn:
    """One nodule with all that was drawn of it, and a picture of it."""

    outlines: Outlines  # with the model told the place; of one reader or more
    voxel_mm3: float
    slice_hu: np.ndarray  # (H, W) int16: the slice with most consensus, around the nodule
    slice_readers: np.ndarray  # (R, H, W) bool, the same part
    slice_model: np.ndarray  # (H, W) bool
    texture_seen: str | None = None  # what the model says, where it was asked
    # The mask of what the model found here by itself, and its score; empty and 0: missed.
    found: np.ndarray | None = None
    found_score: float = 0.0


@dataclass
class Seen:
    """What was made of all cases."""

    scans: list[ScanResult] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    num_cases: int = 0
    num_excluded: int = 0  # nodules that too few readers marked
    is_phantom: bool = False
    intensity: str = "hu"
    notes: list[str] = field(default_factory=list)


def look_at(cases: Cases, names: Sequence[str], looker: Looker, told: Told = tell_nobody) -> Seen:
    """Look at cases, one after the other.

    Args:
        cases: where they come from.
        names: which of them.
        looker: the network.
        told: hears of each case before it is looked at.
    """
    seen = Seen()
    for number, name in enumerate(names):
        told(number, len(names), name)
        case = cases.load(name)
        try:
            _look(case, cases.max_readers, looker, seen)
        except ValueError as error:
            raise ValueError(f"case {name}: {error}") from error
    return seen


def _look(case: Case, max_readers: int, looker: Looker, seen: Seen) -> None:
    seen.num_cases += 1
    seen.is_phantom |= case.is_phantom
    seen.intensity = case.intensity
    included = [one for one in case.nodules if is_included(one, max_readers)]
    seen.num_excluded += len(case.nodules) - len(included)
    found = None
    if case.extent == "scan":
        found = find_nodules(case.volume, looker.network, looker.settings())
        seen.scans.append(scan_result(case, found, max_readers))
        seen.notes += [f"{case.name}: {note}" for note in found.notes]
    seen.drawn += _draw(case, included, looker, found)


def is_included(nodule: TrueNodule, max_readers: int) -> bool:
    """Whether so many readers marked it that it must be found; else it is left open."""
    return nodule.num_readers >= INCLUDED_SHARE * max_readers


def scan_result(case: Case, found: Findings, max_readers: int) -> ScanResult:
    """Nodules and findings as points."""
    targets = []
    for nodule in case.nodules:
        x, y, z = (float(value) for value in case.volume.grid.to_patient(centre_of(nodule)))
        included = is_included(nodule, max_readers)
        targets.append(Target(nodule.name, (x, y, z), nodule.diameter_mm, is_included=included))
    return ScanResult(
        case.name,
        case.patient,
        tuple(targets),
        np.array([finding.centre_mm for finding in found.findings]).reshape(-1, 3),
        np.array([finding.score for finding in found.findings], np.float64),
    )


def _draw(
    case: Case, nodules: Sequence[TrueNodule], looker: Looker, found: Findings | None
) -> list[Drawn]:
    nodules = [nodule for nodule in nodules if readers_of(nodule.votes)]
    if not nodules:
        return []
    if found is None:
        mask = predict_patch(
            case,
            looker.network,
            multiple=looker.multiple,
            sample=looker.sample,
            is_mirrored=looker.is_mirrored,
        )
        whole = tuple(slice(0, size) for size in mask.shape)
        return [_drawn(case, nodule, (whole, mask), None, None) for nodule in nodules]  # type: ignore[arg-type]
    points = case.volume.grid.to_patient(np.stack([centre_of(nodule) for nodule in nodules]))
    told = segment_at(case.volume, points, looker.network, looker.settings())
    hits = match(scan_result(case, found, 1)).best
    result = []
    for nodule, finding in zip(nodules, told, strict=True):
        hit = found.findings[hits[nodule.name]] if nodule.name in hits else None
        texture = TEXTURES[int(np.argmax(finding.texture))]
        result.append(_drawn(case, nodule, (finding.window, finding.mask), hit, texture))
    return result


def _drawn(
    case: Case,
    nodule: TrueNodule,
    model: tuple[Window, np.ndarray],
    hit: Finding | None,
    texture_seen: str | None,
) -> Drawn:
    windows = [nodule.window, model[0], *([hit.window] if hit else [])]
    around = _around(case, nodule, windows)
    readers = np.stack(
        [placed(nodule.reader(k), nodule.window, around) for k in readers_of(nodule.votes)]
    )
    mask = placed(model[1], model[0], around)
    grid, voxels = case.volume.grid, case.volume.voxels[around]
    centre = centre_of(nodule) - [part.start for part in around]
    texture = texture_class(nodule.texture)
    outlines = Outlines(
        nodule.name if nodule.name.startswith(case.name) else f"{case.name}/{nodule.name}",
        case.patient,
        nodule.diameter_mm,
        readers,
        mask,
        TEXTURES[texture] if texture >= 0 else None,
        {"threshold": bright_component(voxels, grid.spacing_mm, centre)},
    )
    areas = consensus_of(readers).sum((1, 2))
    middle = int(areas.argmax()) if areas.any() else int(readers.sum((0, 2, 3)).argmax())
    part = _picture(centre, grid.spacing_mm[1], voxels.shape)
    return Drawn(
        outlines,
        grid.voxel_mm3,
        voxels[middle][part],
        readers[:, middle][:, *part],
        mask[middle][part],
        texture_seen if texture >= 0 else None,
        found=placed(hit.mask, hit.window, around) if hit else None,
        found_score=hit.score if hit else 0.0,
    )


def _around(case: Case, nodule: TrueNodule, windows: Sequence[Window]) -> Window:
    """A window that holds all windows and what a picture shows, inside the scan."""
    more = [0, *(int(np.ceil(PICTURE_MM / step)) for step in case.volume.grid.spacing_mm[1:])]
    middle = np.round(centre_of(nodule)).astype(int)
    parts = []
    for axis, size in enumerate(case.volume.grid.shape):
        starts = [window[axis].start for window in windows]
        stops = [window[axis].stop for window in windows]
        start = min([*starts, int(middle[axis]) - more[axis]])
        stop = max([*stops, int(middle[axis]) + more[axis] + 1])
        parts.append(slice(max(0, start), min(size, stop)))
    return parts[0], parts[1], parts[2]


def _picture(centre: np.ndarray, pixel_mm: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    reach = int(np.ceil(PICTURE_MM / pixel_mm))
    rows, columns = (
        slice(max(0, int(middle) - reach), min(size, int(middle) + reach + 1))
        for middle, size in zip(np.round(centre[1:]), shape[1:], strict=True)
    )
    return rows, columns


def placed(mask: np.ndarray, window: Window, around: Window) -> np.ndarray:
    """A mask of a window in a larger window that holds it."""
    result = np.zeros([part.stop - part.start for part in around], bool)
    inside = tuple(
        slice(part.start - outer.start, part.stop - outer.start)
        for part, outer in zip(window, around, strict=True)
    )
    result[inside] = mask
    return result


def consensus_volume_mm3(drawn: Drawn) -> float:
    """Of all readers."""
    return float(consensus_of(drawn.outlines.readers).sum() * drawn.voxel_mm3)


def reader_volumes_mm3(drawn: Drawn) -> tuple[float, ...]:
    """Of each reader."""
    voxels = drawn.outlines.readers.sum((1, 2, 3))
    return tuple(float(value * drawn.voxel_mm3) for value in voxels)
