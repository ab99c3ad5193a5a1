"""One part, from its trigger to its verdict; every way out of here is a verdict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from core.schedule.pool import Expired, Failed, Gone, Lost, Refused
from core.schedule.wire import Frame
from kits.defect.line.alarms import Alarms
from kits.defect.line.audit import Audit
from kits.defect.line.cells import CELL_PX, Cells, num_cells
from kits.defect.line.child import Child
from kits.defect.line.detect import AUDIT, FLAGGED, Detector, Service
from kits.defect.line.ledger import Entry, Ledger, Waiting
from kits.defect.line.measure import grow, measure
from kits.defect.line.merge import Merged, merge
from kits.defect.line.recipe import Recipe
from kits.defect.line.ring import Damaged, Ring
from kits.defect.line.rules import ignored_cells, judge, zones_at
from kits.defect.line.slots import Slots
from kits.defect.line.store import Store
from kits.defect.line.tally import Tally
from kits.defect.line.tiling import Box, Grid, draw_blocks, touches
from kits.defect.line.verdict import Defect, Found, State, Verdict
from kits.defect.planes import planes_of

LOG = logging.getLogger(__name__)
# Of the deadline, what is kept for rules, ledger and telling.
DECIDE_SHARE = 0.06
# By when the triage must have begun with a frame: one that waited longer would only be late in the
# detector, and hold up those behind it.
LOOK_SHARE = 0.6
# Around a defect in its picture, and the picture's least side.
PICTURE_MARGIN_PX, PICTURE_PX = 32, 128
# Of a frame, from which share of flagged cells on all is looked at.
ALL_SHARE = 0.5
# Without a part that was missed, after which the alarm ends: it is not to begin and end with each.
CALM_S = 1.0
# For which a camera remembers what its zones hide.
MAX_SHIFTS = 1000


class Missed(Exception):
    """A part cannot be inspected; the text says why."""


@dataclass(eq=False)
class Camera:
    """A camera of the line, and what belongs to it."""

    number: int
    name: str
    recipe: Recipe
    recipe_mark: str
    grid: Grid  # with small tiles where the detector takes them
    blocks: list[Box]
    ring: Ring
    slots: Slots
    child: Child
    triage: Child
    num_triggers: int = 0
    num_awaited: int = 0  # images
    missed_s: float = 0.0  # when a part of it became UNINSPECTED
    _ignored: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def ignored(self, shift_px: tuple[float, float]) -> np.ndarray:
        """(rows, columns) bool: cells at which nobody looks, where the part lies so far off."""
        key = round(shift_px[0]), round(shift_px[1])
        found = self._ignored.get(key)
        if found is None:
            if len(self._ignored) >= MAX_SHIFTS:
                self._ignored.clear()
            shape = num_cells(self.recipe.height_px, self.recipe.width_px)
            found = self._ignored[key] = ignored_cells(self.recipe.zones, shape, CELL_PX, key)
        return found


class Part:
    """A trigger while its verdict is not known."""

    def __init__(self, trigger: int, camera: Camera, start_s: float) -> None:
        self.trigger = trigger
        self.camera = camera
        self.at = camera.num_triggers  # which frame of the camera
        camera.num_triggers += 1
        self.start_s = start_s
        self.deadline_s = start_s + camera.recipe.deadline_ms / 1e3
        self.stage = "before its image was asked for"
        self.times_ms: dict[str, float] = {}
        self.slot = camera.slots.take()
        self.frame = ""
        self.cells: Cells | None = None
        self.num_tiles = 0
        self.num_audits = 0
        self.model = ""
        self.pending: Waiting

    def passed(self, stage: str) -> None:
        """Note the time."""
        self.times_ms[stage] = 1e3 * (time.monotonic() - self.start_s)

    def latest_ns(self, share: float = 1.0) -> int:
        """When so much of the time until the deadline is over, as other processes take it."""
        return int(1e9 * (self.start_s + share * (self.deadline_s - self.start_s)))


@dataclass(eq=False)
class Inspection:
    """What all parts need."""

    ledger: Ledger
    detector: Detector
    alarms: Alarms
    store: Store
    audit: Audit
    tally: Tally
    random: np.random.Generator

    async def inspect(self, part: Part) -> Verdict:
        """A verdict, written and told before the deadline, or UNINSPECTED."""
        try:
            async with asyncio.timeout(part.deadline_s - time.monotonic()):
                verdict = await self._look_at(part)
        except TimeoutError:
            deadline = part.camera.recipe.deadline_ms
            verdict = self._uninspected(part, f"{deadline:g} ms were over {part.stage}")
        except (Missed, Damaged) as missed:
            verdict = self._uninspected(part, str(missed))
        except Exception as error:
            # Our own mistake; the part must have its verdict all the same.
            LOG.exception("trigger %d", part.trigger)
            what = f"the line failed {part.stage}: {type(error).__name__}: {error}"
            verdict = self._uninspected(part, what)
        finally:
            if part.slot is not None:
                part.camera.slots.release(part.slot)
        verdict = await self._write(part, verdict)
        subject = part.camera.name
        if verdict.state == "UNINSPECTED":
            part.camera.missed_s = time.monotonic()
            self.alarms.begin("uninspected", subject, verdict.reason, part.trigger)
        elif time.monotonic() - part.camera.missed_s > CALM_S:
            self.alarms.end("uninspected", subject, f"none was missed for {CALM_S:g} s")
        return verdict

    async def _look_at(self, part: Part) -> Verdict:
        await asyncio.wrap_future(part.pending.future)
        if self.ledger.trouble:
            raise Missed(self.ledger.trouble)
        await self._capture(part)
        cells = await self._triage(part)
        share = part.camera.recipe.audit_share
        blocks = draw_blocks(part.camera.blocks, cells.flagged, share, self.random)
        with self.detector.in_use() as service:
            part.model = service.file.key
            tiles = self._tiles(part.camera, service, cells)
            found, missed = await self._detect(part, service, cells, tiles, blocks)
            return self._decide(part, service, cells, found, missed)

    async def _capture(self, part: Part) -> None:
        camera, part.stage = part.camera, "while its image was waited for"
        if part.slot is None:
            if camera.num_awaited == camera.ring.num_slots:
                raise Missed(f"no image: {camera.num_awaited} are waited for already")
            raise Missed(f"overload: all {camera.ring.num_slots} frames of the ring are in use")
        slot = part.slot
        camera.slots.hold(slot)
        camera.num_awaited += 1

        def answered(_: Frame | None) -> None:
            camera.num_awaited -= 1
            camera.slots.release(slot)

        ask = np.array([part.trigger, part.at, slot, part.latest_ns()])
        try:
            told = await camera.child.ask(ask, answered)
        except (ValueError, Gone) as error:
            self.alarms.begin("camera", camera.name, str(error), part.trigger)
            raise Missed(f"no image: {error}") from None
        except asyncio.CancelledError:
            self.alarms.begin("camera", camera.name, "no image came in time", part.trigger)
            raise
        self.alarms.end("camera", camera.name)
        part.frame = told["name"].tobytes().decode()
        part.passed("captured")

    async def _triage(self, part: Part) -> Cells:
        camera, part.stage = part.camera, "in the triage"
        slot = part.slot
        assert slot is not None
        camera.slots.hold(slot)
        ask = np.array([camera.number, slot, part.trigger, part.latest_ns(LOOK_SHARE)])
        try:
            told = await camera.triage.ask(ask, lambda _: camera.slots.release(slot))
        except (ValueError, Gone) as error:
            raise Missed(f"no triage: {error}") from None
        shift = (float(told["shift"][0]), float(told["shift"][1]))
        flagged = told["flagged"] & ~camera.ignored(shift)
        part.cells = Cells(flagged, told["scores"], shift)
        part.passed("triaged")
        if self.tally.wants_background(camera):
            frame = camera.ring.read(slot, part.trigger, has_checksum=False)
            self.tally.set_background(camera, frame)
        return part.cells

    def _tiles(self, camera: Camera, service: Service, cells: Cells) -> list[Box]:
        if cells.flagged.mean() > ALL_SHARE:
            return camera.grid.every()
        has_small = service.file.given.side_px is None
        return replace(camera.grid, has_small=has_small).cover(cells.flagged)

    async def _detect(
        self, part: Part, service: Service, cells: Cells, tiles: list[Box], blocks: list[Box]
    ) -> tuple[list[Found], str]:
        """What was found, and why a flagged tile was not looked at; empty: all were."""
        part.stage = "in the detector"
        camera, slot = part.camera, part.slot
        assert slot is not None
        drawn = [camera.grid.around(block) for block in blocks]
        # A tile that is looked at anyway answers for the block, too.
        more = [tile for tile in dict.fromkeys(drawn) if tile not in tiles]
        boxes = [*tiles, *more]
        pixels = camera.ring.cut(slot, part.trigger, boxes)
        planes = {
            box: self._planes(service, camera.recipe, cells, one, box)
            for box, one in zip(boxes, pixels, strict=True)
        }
        jobs = [
            *self._jobs(service, tiles, FLAGGED),
            *self._jobs(service, more, AUDIT),
        ]
        deadline_s = part.deadline_s - DECIDE_SHARE * camera.recipe.deadline_ms / 1e3
        answers = await asyncio.gather(
            *(
                self.detector.look(
                    service,
                    side_px,
                    [(box, planes[box]) for box in some],
                    deadline_s=deadline_s,
                    priority=priority,
                    tenant=camera.name,
                )
                for side_px, some, priority in jobs
            ),
            return_exceptions=True,
        )
        found: list[Found] = []
        failed: dict[Box, BaseException] = {}
        for (_, some, _), answer in zip(jobs, answers, strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, Refused | Expired | Lost | Failed):
                    raise answer
                failed.update(dict.fromkeys(some, answer))
            else:
                found += answer
        part.num_tiles = len(boxes) - len(failed)
        part.passed("detected")
        self._count(part, cells, blocks, drawn, failed, found)
        missed = [failed[tile] for tile in tiles if tile in failed]
        if not missed:
            return found, ""
        return found, f"{len(missed)} of {len(tiles)} tiles were not looked at: {_why(missed[0])}"

    def _jobs(
        self, service: Service, tiles: Sequence[Box], priority: int
    ) -> list[tuple[int, list[Box], int]]:
        """Tiles of one size that run together, with that size and a priority."""
        jobs = []
        for side_px in service.sides_px:
            some = [tile for tile in tiles if service.side_of(tile) == side_px]
            step = self.detector.together(service, side_px, len(some))
            jobs += [(side_px, some[at : at + step], priority) for at in range(0, len(some), step)]
        return jobs

    def _planes(
        self, service: Service, recipe: Recipe, cells: Cells, pixels: np.ndarray, box: Box
    ) -> np.ndarray:
        if not service.file.has_template:
            return planes_of(pixels)
        right, down = (round(shift) for shift in cells.shift_px)
        return planes_of(pixels, moved_template(recipe.arrays["template"], box, right, down))

    def _count(
        self,
        part: Part,
        cells: Cells,
        blocks: Sequence[Box],
        drawn: Sequence[Box],
        failed: dict[Box, BaseException],
        found: Sequence[Found],
    ) -> None:
        """Add a part to the audit."""
        looked = [block for block, tile in zip(blocks, drawn, strict=True) if tile not in failed]
        part.num_audits = len(looked)
        escapes = 0
        if looked and found:
            size = part.camera.recipe.height_px, part.camera.recipe.width_px
            for defect in merge(found, size):
                x, y = _centre(defect.box_px)
                if not touches(cells.flagged, defect.box_px):
                    escapes += any(_holds(block, x, y) for block in looked)
        self.audit.add(len(looked), len(blocks) - len(looked), escapes)

    def _decide(
        self, part: Part, service: Service, cells: Cells, found: Sequence[Found], missed: str
    ) -> Verdict:
        part.stage = "while it was judged"
        recipe = part.camera.recipe
        merged = merge(found, (recipe.height_px, recipe.width_px))
        defects, reason = judge(self._defects(part, service, cells, merged), recipe)
        if any(defect.breaks for defect in defects):
            defects = tuple(self._pictured(part, number, one) for number, one in enumerate(defects))
            state: State = "NG"
        elif missed:
            state, reason = "UNINSPECTED", f"overload: {missed}"
        else:
            state = "OK"
        return self._verdict(part, state, reason, defects)

    def _defects(
        self, part: Part, service: Service, cells: Cells, merged: Sequence[Merged]
    ) -> list[Defect]:
        camera, recipe, slot = part.camera, part.camera.recipe, part.slot
        assert slot is not None
        size = recipe.height_px, recipe.width_px
        boxes = [grow(one.box_px, size) for one in merged]
        defects = []
        for one, box, pixels in zip(
            merged, boxes, camera.ring.cut(slot, part.trigger, boxes), strict=True
        ):
            zones = zones_at(*_centre(one.box_px), recipe.zones, cells.shift_px)
            if any(zone.is_ignored for zone in zones):
                continue
            left, top, right, bottom = one.box_px
            inner = left - box[0], top - box[1], right - box[0], bottom - box[1]
            shape = measure(pixels, inner)
            defects.append(
                Defect(
                    kind=service.file.name(one.kind),
                    score=one.score,
                    box_px=one.box_px,
                    length_mm=shape.length * recipe.mm_per_px,
                    width_mm=shape.width * recipe.mm_per_px,
                    area_mm2=shape.area * recipe.mm_per_px**2,
                    zones=tuple(zone.name for zone in zones),
                    was_audited=not touches(cells.flagged, one.box_px),
                )
            )
        return defects

    def _pictured(self, part: Part, number: int, defect: Defect) -> Defect:
        """The defect with its picture on the way to the disk."""
        recipe, slot = part.camera.recipe, part.slot
        assert slot is not None
        width, height = defect.box_px[2] - defect.box_px[0], defect.box_px[3] - defect.box_px[1]
        margin = max(PICTURE_MARGIN_PX, round((PICTURE_PX - max(width, height)) / 2))
        box = grow(defect.box_px, (recipe.height_px, recipe.width_px), margin)
        (pixels,) = part.camera.ring.cut(slot, part.trigger, [box])
        name = f"{part.trigger:09d}-{number}.png"
        return replace(defect, crop=self.store.keep(name, pixels))

    def _uninspected(self, part: Part, reason: str) -> Verdict:
        return self._verdict(part, "UNINSPECTED", reason, ())

    def _verdict(
        self, part: Part, state: State, reason: str, defects: tuple[Defect, ...]
    ) -> Verdict:
        return Verdict(
            trigger=part.trigger,
            camera=part.camera.name,
            state=state,
            reason=reason,
            frame=part.frame,
            defects=defects,
            times_ms=part.times_ms,
            num_cells=0 if part.cells is None else int(part.cells.flagged.sum()),
            num_tiles=part.num_tiles,
            num_audits=part.num_audits,
            model=part.model,
            recipe=part.camera.recipe_mark,
        )

    async def _write(self, part: Part, verdict: Verdict) -> Verdict:
        """Into the ledger; only what is there by the deadline is told as it was decided."""
        entry = Entry(
            verdict.trigger, verdict.camera, verdict.state, verdict.reason, verdict.to_json()
        )
        waiting = self.ledger.append(entry)
        if verdict.state != "UNINSPECTED":
            try:
                async with asyncio.timeout(part.deadline_s - time.monotonic()):
                    entry = await asyncio.wrap_future(waiting.future)
            except TimeoutError:
                entry = self.ledger.give_up(waiting)
            if entry.state != verdict.state:
                verdict = replace(verdict, state="UNINSPECTED", reason=entry.reason)
        part.passed("decided")
        return verdict


def _why(error: BaseException) -> str:
    if isinstance(error, Refused):
        words = {
            "full": "as many tiles wait as may",
            "late": "they could not be done in time",
            "tenant": "the camera has its share of the detector already",
            "unknown": "the model is not in service",
        }
        return words[error.refusal.reason]
    return str(error)


def moved_template(template: np.ndarray, box: Box, right: int, down: int) -> np.ndarray:
    """What the template has where a tile lies; its own border goes on beyond it."""
    left, top, end, bottom = box
    rows = np.clip(np.arange(top - down, bottom - down), 0, template.shape[0] - 1)
    columns = np.clip(np.arange(left - right, end - right), 0, template.shape[1] - 1)
    return template[np.ix_(rows, columns)]


def _centre(box: tuple[float, float, float, float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _holds(block: Box, x: float, y: float) -> bool:
    return block[0] <= x < block[2] and block[1] <= y < block[3]
