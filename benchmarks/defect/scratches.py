"""Scratches of 0.2 mm at a field of view of 300 mm, end to end on whole 4K parts.

Protocol. Three rendered products, one of each surface, at 3840 x 2160 px; the seed is that of no
training, and no two kinds of parts share a surface's grain. Each product's recipe is learned from
20 good parts; `kits.defect.learn` asks the optics first, and so does this. A part goes through what
the line's processes call, in this process, one after the other and without a deadline: triage,
tiles, detector, merge. There are no rules: any defect rejects a part, and so does a part that the
triage refuses. One threshold for all products and classes: the lowest score at which the clean
validation parts prove with 95 % certainty that at most 1 % of such parts is rejected (none of 300
may be); beside it, `at_a_hundredth` is where just one in a hundred of them is rejected. It is then
applied once, to clean test parts and to parts with some 12 scratches each,
0.2 mm wide, 2 to 20 mm long, of the renderer's own range of contrasts. A scratch is found as in
`kits.defect.metrics.lines.hits`: a defect of any class overlaps it by a third, or lies with its
middle on it.

Stages: the triage flags a cell on the scratch; the detector shows it in a tile at any score that
leaves the bundle, which is by chance where boxes are many; at the threshold; the merged defects of
the verdict do. Every tile of some of the same parts, at the same threshold, says what the triage
costs.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defect import subject
from benchmarks.defect.scratch_parts import FOV_MM, LENGTH_MM, WIDTH_MM, Parts, optics, tell
from benchmarks.defect.study import Study
from benchmarks.serve.study import print_table
from core.schedule.model_file import open_model
from kits.defect import detecting
from kits.defect.data.image_set import LabelledImage
from kits.defect.line import inspection
from kits.defect.line.cells import CELL_PX
from kits.defect.line.detect import found_in
from kits.defect.line.detector_file import DetectorFile
from kits.defect.line.merge import merge
from kits.defect.line.recipe import Recipe
from kits.defect.line.tiling import Box, Grid
from kits.defect.line.triage import FrameTriage
from kits.defect.line.verdict import Found
from kits.defect.metrics.lines import hits
from kits.defect.metrics.matching import Scored
from kits.defect.metrics.pod import pod_metrics
from kits.defect.metrics.proportions import lower_bound, upper_bound
from kits.defect.planes import planes_of

GOAL, STRETCH, REJECTED = 0.98, 0.992, 0.01
CLEAR = 3.0  # contrast-to-noise from which a scratch is said to be visible
PRODUCTS = (0, 1, 2)
BATCH = 8
LOWEST_SCORE = 0.05  # that leaves a bundle
STAGES = ("triage", "any score", "detector", "verdict")
EDGES = {
    "contrast_to_noise": (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, math.inf),
    "length_mm": (2.0, 3.0, 5.0, 8.0, 12.0, math.inf),
    "width_mm": (0.05, 0.075, 0.1, 0.15, 0.2, 0.25, math.inf),
}


@dataclass(frozen=True)
class Numbers:
    """Parts of each product; the full ones take about 20 minutes of one core the first time."""

    good: int = 20
    validation: int = 100
    clean: int = 100
    scratched: int = 56
    widths: int = 17
    everywhere: int = 3  # of the scratched and of the clean ones


QUICK = Numbers(good=4, validation=2, clean=2, scratched=2, widths=1, everywhere=1)


@dataclass(frozen=True)
class Looked:
    """What became of one part."""

    truth: LabelledImage  # without its pixels
    flagged: np.ndarray  # (R, C) bool
    found: tuple[Found, ...]  # of all tiles, at any score that leaves the detector
    num_tiles: int = 0
    refused: str = ""  # why it is UNINSPECTED

    @property
    def worst(self) -> float:
        """The highest score: from a higher threshold on the part is good."""
        return math.inf if self.refused else max((one.score for one in self.found), default=0.0)


class Cascade:
    """What a line does between image and verdict, without its deadline, for one product."""

    def __init__(self, recipe: Recipe, detector: Path) -> None:
        file = DetectorFile.open(detector)
        self._recipe, self._triage = recipe, FrameTriage(recipe)
        # Thresholds are chosen afterwards: here all comes through that leaves the bundle.
        self._file = replace(file, scores=(), score=LOWEST_SCORE)
        self._pipeline = open_model(detector, "", threads=1)
        self._grid = Grid(
            recipe.height_px, recipe.width_px, recipe.tile_px, recipe.halo_px,
            has_small=file.given.side_px is None,
        )  # fmt: skip
        self.cpu_s: defaultdict[str, float] = defaultdict(float)

    def look(self, image: LabelledImage, *, everywhere: bool = False) -> Looked:
        """A part through triage and detector, or every tile through the detector."""
        truth = replace(image, pixels=image.pixels[:0])
        start = time.process_time()
        try:
            cells = self._triage.look(image.pixels)
        except ValueError as error:
            grid = -(-image.pixels.shape[0] // CELL_PX), -(-image.pixels.shape[1] // CELL_PX)
            return Looked(truth, np.zeros(grid, bool), (), refused=str(error))
        self.cpu_s["triage"] += time.process_time() - start
        start = time.process_time()
        is_whole = everywhere or cells.flagged.mean() > inspection.ALL_SHARE
        tiles = self._grid.every() if is_whole else self._grid.cover(cells.flagged)
        found = tuple(self._detect(image.pixels, tiles, cells.shift_px))
        self.cpu_s["every tile" if everywhere else "detector"] += time.process_time() - start
        return Looked(truth, cells.flagged, found, len(tiles))

    def _detect(
        self, frame: np.ndarray, tiles: Sequence[Box], shift_px: tuple[float, float]
    ) -> Iterator[Found]:
        """In runs of tiles of one size, as the line puts them together."""
        given = self._file.given
        for side_px in sorted({tile[2] - tile[0] for tile in tiles}):
            some = [tile for tile in tiles if tile[2] - tile[0] == side_px]
            for first in range(0, len(some), BATCH):
                batch = some[first : first + BATCH]
                planes = [self._planes(frame, tile, shift_px) for tile in batch]
                given_arrays = {given.name: given.batch(planes, given.side_px or side_px)}
                yield from found_in(self._pipeline.predict(given_arrays), self._file, batch)

    def _planes(self, frame: np.ndarray, tile: Box, shift_px: tuple[float, float]) -> np.ndarray:
        left, top, right, bottom = tile
        pixels = frame[top:bottom, left:right]
        if not self._file.has_template:
            return planes_of(pixels)
        across, down = (round(shift) for shift in shift_px)
        template = self._recipe.arrays["template"]
        return planes_of(pixels, inspection.moved_template(template, tile, across, down))


def run_scratches(study: Study, detector: Path | None) -> dict[str, Any]:
    """Look at all parts once, choose the threshold, then count."""
    numbers = QUICK if study.quick else Numbers()
    file, is_trained = subject.choose_detector(detector)
    start, start_cpu = time.perf_counter(), time.process_time()
    report = optics()
    looked: dict[str, dict[str, list[Looked]]] = {}
    recipes: dict[str, Any] = {}
    cpu_s: defaultdict[str, float] = defaultdict(float)
    for product in PRODUCTS:
        parts = Parts(product)
        study.say(f"{parts.surface}: {asdict(numbers)}")
        recipe = parts.recipe(numbers.good)
        recipes[parts.surface] = _told_of(recipe)
        cascade = Cascade(recipe, file)
        looked[parts.surface] = _look_at(parts, cascade, numbers)
        for name, seconds in cascade.cpu_s.items():
            cpu_s[name] += seconds
    found = summarise(looked)
    return {
        "goal": GOAL,
        "stretch": STRETCH,
        "is_trained": is_trained,
        "detector": DetectorFile.open(file).key,
        "fov_mm": FOV_MM,
        "width_mm": WIDTH_MM,
        "length_mm": [LENGTH_MM, 20.0],
        "optics": {"defect_px": report.defect_px, "detection": report.detection,
                   "warnings": list(report.warnings)},
        "parts_of_each": asdict(numbers),
        "recipes": recipes,
        **found,
        "cpu_s": {name: round(value, 1) for name, value in cpu_s.items()},
        "whole_cpu_s": round(time.process_time() - start_cpu, 1),
        "wall_s": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def _look_at(parts: Parts, cascade: Cascade, numbers: Numbers) -> dict[str, list[Looked]]:
    found: dict[str, list[Looked]] = {}
    for kind in ("validation", "clean", "scratched", "widths"):
        number = getattr(numbers, kind)
        found[kind] = []
        for at in range(number):
            tell(f"{parts.surface}: {kind} {at + 1} of {number}", is_last=at + 1 == number)
            image = parts.load(kind, at)
            found[kind].append(cascade.look(image))
            if kind in ("clean", "scratched") and at < numbers.everywhere:
                whole = cascade.look(image, everywhere=True)
                found.setdefault(f"{kind}, every tile", []).append(whole)
    return found


def _told_of(recipe: Recipe) -> dict[str, Any]:
    names = ("images", "flagged", "contrast_levels", "is_widened", "cannot_promise")
    return {name: recipe.notes[name] for name in names}


def choose_threshold(worst: Sequence[float]) -> float:
    """The lowest score at which clean parts prove that at most a hundredth is rejected.

    Args:
        worst: the highest score of each; of 299 or more with 95 % certainty, of fewer none may be
            rejected, which proves less.
    """
    falling = np.sort(np.asarray(worst, np.float32))[::-1]
    number, rejected = len(falling), 0
    while upper_bound(rejected + 1, number) <= REJECTED:
        rejected += 1
    above = float(np.nextafter(falling[rejected], np.float32(np.inf)))
    return max(LOWEST_SCORE, above)


def allowed_threshold(worst: Sequence[float]) -> float:
    """The lowest score at which at most a hundredth of these clean parts is rejected."""
    falling = np.sort(np.asarray(worst, np.float32))[::-1]
    above = float(np.nextafter(falling[int(REJECTED * len(falling))], np.float32(np.inf)))
    return max(LOWEST_SCORE, above)


@dataclass(frozen=True)
class Rows:
    """Scratches of some parts: what they are, and which stage showed them."""

    sizes: dict[str, np.ndarray]  # (n,) by name of EDGES
    stages: dict[str, np.ndarray]  # (n,) bool

    def where(self, chosen: np.ndarray) -> Rows:
        """Some of them."""
        return Rows(
            {name: values[chosen] for name, values in self.sizes.items()},
            {name: values[chosen] for name, values in self.stages.items()},
        )

    def told(self) -> dict[str, Any]:
        """Rates of all stages; of the verdict with what so many prove."""
        number, shown = len(self.stages["verdict"]), int(self.stages["verdict"].sum())
        if not number:
            return {"scratches": 0}
        rates = {name: round(float(values.mean()), 4) for name, values in self.stages.items()}
        return {"scratches": number, "missed": number - shown, **rates,
                "lower_95": round(lower_bound(shown, number), 4)}  # fmt: skip


def rows_of(parts: Sequence[Looked], threshold: float) -> Rows:
    """Each scratch of some parts."""
    stages: dict[str, list[np.ndarray]] = {name: [] for name in STAGES}
    for part in parts:
        size = part.flagged.shape[0] * CELL_PX, part.flagged.shape[1] * CELL_PX
        kept = [one for one in part.found if one.score >= threshold]
        stages["triage"].append(_shown(part))
        stages["any score"].append(_hits(part, part.found))
        stages["detector"].append(_hits(part, kept))
        stages["verdict"].append(_hits(part, merge(kept, size)))
    truths: list[Any] = [part.truth for part in parts]
    sizes = {
        "contrast_to_noise": [truth.contrasts_to_noise for truth in truths],
        "length_mm": [truth.lengths_mm for truth in truths],
        "width_mm": [truth.widths_mm for truth in truths],
    }
    return Rows(
        {name: np.concatenate(values) for name, values in sizes.items()},
        {name: np.concatenate(values) for name, values in stages.items()},
    )


def _shown(part: Looked) -> np.ndarray:
    """(G,) whether a cell on the straight line between a scratch's ends is flagged."""
    segments = part.truth.segments_px
    assert segments is not None
    last = np.array(part.flagged.shape) - 1
    shown = []
    for start, end in segments:
        steps = np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / 4))[:, None]
        cells = ((start + steps * (end - start)) // CELL_PX).astype(int)[:, ::-1]
        rows, columns = np.clip(cells, 0, last).T
        shown.append(bool(part.flagged[rows, columns].any()))
    return np.array(shown, bool)


def _hits(part: Looked, found: Sequence[Any]) -> np.ndarray:
    """(G,) by boxes in the frame."""
    boxes = np.array([one.box_px for one in found], np.float32).reshape(-1, 4)
    scores = np.array([one.score for one in found], np.float32)
    kinds = np.array([one.kind for one in found], np.int64)
    return hits(Scored(part.truth, detecting.Found(boxes, scores, kinds)), 0.0)


def summarise(looked: dict[str, dict[str, list[Looked]]]) -> dict[str, Any]:
    """All numbers.

    Args:
        looked: surface -> kind of parts -> what became of each.
    """

    def every(kind: str) -> list[Looked]:
        return [one for kinds in looked.values() for one in kinds[kind]]

    worst = [one.worst for one in every("validation")]
    threshold = choose_threshold(worst)
    rows = {name: rows_of(kinds["scratched"], threshold) for name, kinds in looked.items()}
    rows = {"all": rows_of(every("scratched"), threshold), **rows}
    clear = {name: some.where(some.sizes["contrast_to_noise"] >= CLEAR)
             for name, some in rows.items()}  # fmt: skip
    widths = rows_of(every("widths"), threshold)
    clean = {"all": every("clean"), **{name: kinds["clean"] for name, kinds in looked.items()}}
    validation = {name: kinds["validation"] for name, kinds in looked.items()}
    return {
        "threshold": threshold,
        "validation": {name: _rejects(some, threshold)
                       for name, some in {"all": every("validation"), **validation}.items()},
        "false_reject": {name: _rejects(some, threshold) for name, some in clean.items()},
        "scratches": {name: some.told() for name, some in rows.items()},
        "clear_scratches": {name: some.told() for name, some in clear.items()},
        "at_a_hundredth": _at(allowed_threshold(worst), every),
        "pod": {
            **{name: _pod(rows["all"], name) for name in ("contrast_to_noise", "length_mm")},
            "width_mm": _pod(widths, "width_mm"),
            "clear length_mm": _pod(clear["all"], "length_mm"),
        },
        "every_tile": _every_tile(every, threshold),
        "tiles_per_clean_part": round(float(np.mean([one.num_tiles for one in every("clean")])), 2),
        "flagged_of_clean": {name: round(float(np.mean([one.flagged.mean() for one in some])), 5)
                             for name, some in clean.items()},
    }  # fmt: skip


def _rejects(parts: Sequence[Looked], threshold: float) -> dict[str, Any]:
    bad = [one for one in parts if one.worst >= threshold]
    kinds = Counter(max(one.found, key=lambda found: found.score).kind for one in bad if one.found)
    return {
        "parts": len(parts),
        "rejected": len(bad),
        "uninspected": sum(bool(one.refused) for one in bad),
        "rate": round(len(bad) / len(parts), 5),
        "upper_95": round(upper_bound(len(bad), len(parts)), 5),
        "by_class": {str(kind): number for kind, number in sorted(kinds.items())},
    }


def _pod(rows: Rows, name: str) -> dict[str, Any]:
    """The fitted curve's numbers, and what was found between edges."""
    sizes, is_hit = rows.sizes[name], rows.stages["verdict"]
    edges = EDGES[name]
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = (sizes >= low) & (sizes < high)
        number, shown = int(inside.sum()), int(is_hit[inside].sum())
        if number:
            bins.append({"from": low, "scratches": number, "found": round(shown / number, 4),
                         "lower_95": round(lower_bound(shown, number), 4)})  # fmt: skip
    fitted = pod_metrics(sizes.tolist(), is_hit.tolist())
    return {**{key: round(value, 4) for key, value in fitted.items()}, "bins": bins}


def _at(threshold: float, every: Callable[[str], list[Looked]]) -> dict[str, Any]:
    """Another threshold: what it finds, and what it rejects."""
    rows = rows_of(every("scratched"), threshold)
    clear = rows.where(rows.sizes["contrast_to_noise"] >= CLEAR)
    return {
        "threshold": threshold,
        "validation": _rejects(every("validation"), threshold),
        "false_reject": _rejects(every("clean"), threshold),
        "scratches": rows.told(),
        "clear_scratches": clear.told(),
    }


def _every_tile(every: Callable[[str], list[Looked]], threshold: float) -> dict[str, Any]:
    """The same parts twice: as the line looks at them, and every tile."""
    whole = every("scratched, every tile")
    names = {part.truth.name for part in whole}
    # Parts of two products may have one name, but then both are among those looked at.
    line = [part for part in every("scratched") if part.truth.name in names]
    clean = every("clean, every tile")
    return {
        "line": rows_of(line, threshold).told(),
        "every_tile": rows_of(whole, threshold).told(),
        "clean_rejected_by_every_tile": _rejects(clean, threshold),
    }


def show_scratches(found: dict[str, Any]) -> None:
    """For people."""
    columns = ("scratches", "number", *STAGES, "lower bound")
    print_table(
        f"{found['width_mm']:g} mm scratches at {found['fov_mm']:g} mm, whole 4K parts",
        columns,
        table_rows(found),
    )
    rejects = found["false_reject"]["all"]
    print(
        f"clean parts rejected: {rejects['rejected']} of {rejects['parts']} "
        f"(at most {rejects['upper_95']:.2%}) at score {found['threshold']:.3f}"
    )
    other = found["at_a_hundredth"]
    print(
        f"where 1 % of validation parts is rejected, {other['threshold']:.3f}: "
        f"{other['scratches'].get('verdict')} of scratches, lower bound "
        f"{other['scratches'].get('lower_95')}; {other['false_reject']['rejected']} of "
        f"{other['false_reject']['parts']} clean parts rejected"
    )
    for name, row in found["pod"].items():
        told = ", ".join(f"{key} {row[key]:.3g}" for key in ("a90", "a90_95") if key in row)
        print(f"POD by {name}: {told or 'no curve'}")
    print(f"CPU: {found['whole_cpu_s']:g} s; of it {found['cpu_s']}")


def table_rows(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """A row for all, for each surface, and for every tile; then those that are clear."""
    groups = {
        **found["scratches"],
        **{f"{name}, contrast-to-noise >= {CLEAR:g}": row
           for name, row in found["clear_scratches"].items()},
        "some parts: the line": found["every_tile"]["line"],
        "some parts: every tile": found["every_tile"]["every_tile"],
    }  # fmt: skip
    return [
        (name, row["scratches"], *(row.get(stage) for stage in STAGES), row.get("lower_95"))
        for name, row in groups.items()
    ]
