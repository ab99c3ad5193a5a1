"""From a volume to its nodules: a coarse look at the lung box, a fine one at some places.

`find_nodules` is what every verb calls; `segment_at` looks at places that somebody named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kits.medical.findings import Finding, Findings
from kits.medical.geometry import Volume, Window
from kits.medical.infer.coarse import Candidate, find_candidates, find_heat
from kits.medical.infer.crops import FineGrid, Patch, look
from kits.medical.infer.lungs import find_lungs
from kits.medical.infer.nodule import Look, read_patch
from kits.medical.infer.settings import Network, Progress, Settings

# Share of the smaller of two masks from which they are one nodule.
OVERLAP = 0.5
# Windows of the fine grid -> what the network says of them.
Looker = Callable[[Sequence[Window]], Iterator[Patch]]


def find_nodules(
    volume: Volume,
    network: Network,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Find the nodules of a scan.

    Args:
        volume: of the chest, in Hounsfield units.
        network: {"image": (N, 1, d, h, w) float32} -> logits "mask", "heat", "texture".
        settings: None takes the defaults.
        progress: is told the step and the share of it that is done.

    Returns:
        findings on the scan's grid, highest score first; with wall times of the steps.

    Raises:
        NoLungs: the scan shows no lungs.
    """
    settings = settings or Settings()
    progress = progress or _tell_nobody
    seconds: dict[str, float] = {}
    started = last = time.perf_counter()

    def took(step: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[step], last = now - last, now
        progress(step, 1.0)

    lungs = find_lungs(volume, threads=settings.threads)
    took("lungs")
    heat = find_heat(volume, lungs, network, settings, progress)
    took("coarse")
    candidates = find_candidates(heat, lungs, settings)
    del heat
    took("candidates")
    fine = FineGrid(volume, settings.multiple)
    findings = examine(
        candidates, fine, settings, lambda w: look(network, fine, w, settings), progress
    )
    took("fine")
    seconds["total"] = time.perf_counter() - started
    notes = (lungs.note,) if lungs.note else ()
    return Findings(volume.grid, findings, lungs.window, lungs.volume_ml, seconds, notes)


def segment_at(
    volume: Volume,
    points_mm: np.ndarray,
    network: Network,
    settings: Settings | None = None,
) -> tuple[Finding, ...]:
    """The nodules at given points, whatever their score; one for each point, in their order.

    Args:
        volume: in Hounsfield units; a patch will do.
        points_mm: (n, 3) (x, y, z) in the patient.
        network: as of `find_nodules`.
        settings: None takes the defaults; thresholds of scores are not used.

    Raises:
        ValueError: a point lies outside the volume.
    """
    settings = settings or Settings()
    indices = volume.grid.to_index(np.asarray(points_mm, np.float64).reshape(-1, 3))
    for index, point in zip(indices, np.asarray(points_mm).reshape(-1, 3), strict=True):
        if (index < -0.5).any() or (index > np.array(volume.grid.shape) - 0.5).any():
            raise ValueError(f"point={point} mm is outside the volume; give one inside")
    fine = FineGrid(volume, settings.multiple)
    # Nobody has looked at the whole: the fine look alone decides on the score.
    alone = Settings(**{**vars(settings), "fine_share": 1.0, "threshold": 0.0})
    candidates = [Candidate(index, 0.0) for index in indices]
    return tuple(
        found.finding
        for found in _read(
            candidates, fine, alone, lambda w: look(network, fine, w, alone), _tell_nobody
        )
    )


def examine(
    candidates: Sequence[Candidate],
    fine: FineGrid,
    settings: Settings,
    looker: Looker,
    progress: Progress | None = None,
) -> tuple[Finding, ...]:
    """Look at candidates, join those that are one nodule, leave out what scores low."""
    looks = _read(candidates, fine, settings, looker, progress or _tell_nobody)
    kept: list[Finding] = []
    for finding in sorted((each.finding for each in looks), key=lambda found: -found.score):
        is_high = finding.score >= settings.threshold
        if is_high and not any(_is_same(finding, other) for other in kept):
            kept.append(finding)
    return tuple(kept)


def _read(
    candidates: Sequence[Candidate],
    fine: FineGrid,
    settings: Settings,
    looker: Looker,
    progress: Progress,
) -> list[Look]:
    """Look at each; where a mask does not fit its crop, again in a larger one."""
    looks: dict[int, Look] = {}
    waiting = list(range(len(candidates)))
    done = 0
    for growth in range(settings.max_growth + 1):
        core_mm = settings.crop_mm * 2**growth
        windows = [fine.window(candidates[at].index, core_mm, settings.crop_halo) for at in waiting]
        again = []
        for at, patch in zip(waiting, looker(windows), strict=True):
            looks[at] = read_patch(patch, candidates[at], fine, settings)
            # What will be left out is not worth a second call.
            is_wanted = looks[at].finding.score >= settings.threshold
            if looks[at].is_cut and is_wanted and growth < settings.max_growth:
                again.append(at)
            done += 1
            progress("fine", done / (len(candidates) + len(again)))
        waiting = again
    return [looks[at] for at in range(len(candidates))]


def _is_same(one: Finding, other: Finding) -> bool:
    """Whether two masks share so much that they are of one nodule."""
    both = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(one.window, other.window, strict=True)
    )
    if any(part.start >= part.stop for part in both):
        return False
    shared = _part(one, both) & _part(other, both)
    return bool(shared.sum() >= OVERLAP * min(one.mask.sum(), other.mask.sum()))


def _part(finding: Finding, window: tuple[slice, ...]) -> np.ndarray:
    return finding.mask[
        tuple(
            slice(part.start - held.start, part.stop - held.start)
            for part, held in zip(window, finding.window, strict=True)
        )
    ]


def _tell_nobody(step: str, share: float) -> None:
    """No progress is shown."""
