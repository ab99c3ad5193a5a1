"""The line: cameras, triage, detector and ledger around one event loop.

Each trigger gets its number and its entry in the ledger before its image is asked for, and one
verdict, whatever happens. Cameras and triage are processes of their own (`child.py`), as are the
detector's workers (`core.schedule`); frames lie in shared memory and are not copied.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.schedule.pool import WorkerSpec
from kits.defect.line.alarms import Alarm, Alarms
from kits.defect.line.audit import Audit
from kits.defect.line.child import Child
from kits.defect.line.detect import Detector, DetectorConfig
from kits.defect.line.detector_file import DetectorFile
from kits.defect.line.inspection import Camera, Inspection, Part
from kits.defect.line.ledger import ALARM, CLEARED, NOTE, Entry, Ledger, Sync
from kits.defect.line.recipe import Recipe, fingerprint, read_recipe
from kits.defect.line.ring import Ring
from kits.defect.line.slots import Slots
from kits.defect.line.store import Store
from kits.defect.line.tally import Tally
from kits.defect.line.tiling import Grid
from kits.defect.line.verdict import Verdict

LOG = logging.getLogger(__name__)
LEDGER = "ledger.sqlite"


@dataclass(frozen=True)
class CameraConfig:
    """One camera."""

    name: str
    source: Mapping[str, Any]  # as `sources.source.open_source` takes it
    recipe: Path


@dataclass(frozen=True)
class StationConfig:
    """All that a line may be told, beside its cameras and its detector's file."""

    # Frames of a camera that are looked at, or come, at the same time.
    slots: int = 4
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    # Processes that look at every pixel; cameras share them.
    triage_workers: int = 1
    # "module:function" that makes a triage from a recipe.
    triage: str = "kits.defect.line.triage:open_triage"
    # A network over cells, and its least score; null: none.
    micro_net: str | None = None
    micro_net_score: float = 0.5
    # normal: entries of the ledger survive any process; full: a power cut too, some ms later.
    ledger_sync: Sync = "normal"
    # Kept free beside the ledger, so that a full disk does not end it.
    reserve_mib: int = 16
    # One that has not answered for so long is ended and replaced.
    camera_hang_s: float = 5.0
    triage_hang_s: float = 2.0
    # Of defects, at most.
    max_pictures: int = 2000
    # Of the audit's lot; null: another one each time.
    seed: int | None = None


class Station:
    """A line from `start` to `stop`; of one event loop."""

    def __init__(
        self,
        config: StationConfig,
        cameras: Sequence[CameraConfig],
        detector: Path,
        output: Path,
        *,
        on_verdict: Callable[[Verdict], None] = lambda _: None,
        on_alarm: Callable[[Alarm], None] = lambda _: None,
    ) -> None:
        """Read recipes and the detector's file; nothing is started yet.

        Args:
            config: how.
            cameras: in the order of their numbers.
            detector: a bundle or an ONNX file.
            output: folder of the ledger and the pictures, made if it is not there.
            on_verdict: called once for each trigger.
            on_alarm: called when an alarm begins or ends.
        Raises:
            ValueError: a recipe or the detector cannot be used, or not together.
            OSError: a file cannot be read, or the folder not be made.
        """
        if not cameras or len({camera.name for camera in cameras}) < len(cameras):
            raise ValueError(f"cameras={[c.name for c in cameras]}: name at least one, each once")
        self.config = config
        self.output = output
        self._configs = list(cameras)
        recipes = {path: read_recipe(path) for path in {camera.recipe for camera in cameras}}
        self.recipes: list[Recipe] = [recipes[camera.recipe] for camera in cameras]
        self._file = self._open_detector(detector)
        self._marks = {path: fingerprint(path)[:12] for path in recipes}
        self._on_verdict = on_verdict
        self._on_alarm = on_alarm
        self.alarms = Alarms(self._alarm)
        self.tally = Tally()
        self.audit = Audit(max(recipe.audit_share for recipe in self.recipes))
        output.mkdir(parents=True, exist_ok=True)
        self._tasks: set[asyncio.Task[Verdict]] = set()
        self._is_stopping = False

    def _open_detector(self, path: Path) -> DetectorFile:
        file = DetectorFile.open(path)
        for recipe in self.recipes:
            if recipe.detector_sha256 not in (None, file.sha256):
                raise ValueError(
                    f"{path.name} has sha256 {file.sha256[:12]}, recipe {recipe.product!r} is for "
                    f"{recipe.detector_sha256[:12]}; learn it with this detector, or use that one"
                )
            if file.given.side_px not in (None, recipe.tile_px):
                raise ValueError(
                    f"{path.name} takes tiles of {file.given.side_px} px, recipe "
                    f"{recipe.product!r} has tile_px={recipe.tile_px}; set tile_px to that"
                )
            if file.has_template and "template" not in recipe.arrays:
                raise ValueError(
                    f"{path.name} sees a template, recipe {recipe.product!r} has none; learn it "
                    "again with one"
                )
        return file

    async def start(self) -> None:
        """Open the ledger, start all processes, load the detector.

        Raises:
            ValueError: the ledger is in use, or the detector cannot be loaded.
            Gone: a process ended at once; it has said why on stderr.
            OSError: a disk or memory is full.
        """
        self._open_files()
        children = [*self._triages, *(camera.child for camera in self.cameras)]
        try:
            starts = (self.detector.start(self._file), *(child.start() for child in children))
            for error in await asyncio.gather(*starts, return_exceptions=True):
                if isinstance(error, BaseException):
                    raise error
        except BaseException:
            await self.stop()
            raise
        self.note(f"the line starts with {self._file.key}")

    def _open_files(self) -> None:
        loop = asyncio.get_running_loop()

        def told(kind: str, subject: str) -> Callable[[str], None]:
            return lambda text: loop.call_soon_threadsafe(self._trouble, kind, subject, text)

        self.ledger = Ledger(
            self.output / LEDGER,
            sync=self.config.ledger_sync,
            reserve_bytes=self.config.reserve_mib << 20,
            on_trouble=told("disk", LEDGER),
        )
        self.first_trigger = self.ledger.last_trigger + 1
        self._numbers = itertools.count(self.first_trigger)
        self._store = Store(
            self.output / "defects", self.config.max_pictures, told("disk", "pictures")
        )
        deadline_s = min(recipe.deadline_ms for recipe in self.recipes) / 1e3
        grids = [_grid(recipe) for recipe in self.recipes]
        sides_px = {side for grid in grids for side in (grid.tile_px, grid.small_px)}
        self.detector = Detector(
            self.config.detector, sides_px, deadline_s, self._on_detector_death
        )
        self._rings = [
            Ring.create(self.config.slots, recipe.height_px, recipe.width_px)
            for recipe in self.recipes
        ]
        self._triages = [self._triage(number) for number in range(self.config.triage_workers)]
        self.cameras = [self._camera(number) for number in range(len(self._configs))]
        self.inspection = Inspection(
            ledger=self.ledger,
            detector=self.detector,
            alarms=self.alarms,
            store=self._store,
            audit=self.audit,
            tally=self.tally,
            random=np.random.default_rng(self.config.seed),
        )
        self._recover()

    async def stop(self) -> None:
        """Finish the parts that are on their way, then end everything."""
        self._is_stopping = True
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        children = [*self._triages, *(camera.child for camera in self.cameras)]
        await asyncio.gather(self.detector.close(), *(child.stop() for child in children))
        self.note("the line ends")
        await asyncio.to_thread(self._store.close)
        await asyncio.to_thread(self.ledger.close)
        for ring in self._rings:
            ring.close()

    def trigger(self, camera: int, due_s: float | None = None) -> asyncio.Task[Verdict]:
        """A part is before a camera: give it a number, have it inspected.

        Args:
            camera: its number. Where all of its slots are in use, the part is UNINSPECTED.
            due_s: when it was there, on `time.monotonic`; None: now. The deadline counts from it.
        Returns:
            what becomes its verdict; the task never fails.
        Raises:
            RuntimeError: the line is being stopped; nothing has a number.
        """
        if self._is_stopping:
            raise RuntimeError("the line is being stopped; it takes no trigger")
        start_s = time.monotonic() if due_s is None else due_s
        part = Part(next(self._numbers), self.cameras[camera], start_s)
        part.pending = self.ledger.append(Entry(part.trigger, part.camera.name, "PENDING"))
        task = asyncio.get_running_loop().create_task(self._inspect(part))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def swap(self, path: Path) -> None:
        """Another detector from now on, without a pause; parts on their way keep the old one.

        Raises:
            ValueError: it cannot be used or is not the recipes'; the old one stays.
        """
        file = await asyncio.to_thread(self._open_detector, path)
        before = self._file.key
        try:
            await self.detector.swap(file)
        except (ValueError, OSError) as error:
            self.alarms.once("model", path.name, f"{error}; {before} stays in service")
            raise
        self._file = file
        self.note(f"{file.key} takes the place of {before}")

    def note(self, text: str) -> None:
        """Write something that happened into the ledger."""
        self.ledger.append(Entry(None, "", NOTE, text))

    @property
    def model(self) -> str:
        """The detector in service."""
        return self._file.key

    @property
    def processes(self) -> dict[str, int]:
        """Ids of the processes that are up."""
        children = [*self._triages, *(camera.child for camera in self.cameras)]
        found = {child.spec.id: child.pid for child in children if child.pid is not None}
        return {**found, **self.detector.pool.processes}

    async def _inspect(self, part: Part) -> Verdict:
        verdict = await self.inspection.inspect(part)
        self.tally.add(verdict, part)
        self._on_verdict(verdict)
        return verdict

    def _camera(self, number: int) -> Camera:
        config, recipe, ring = self._configs[number], self.recipes[number], self._rings[number]
        spec = WorkerSpec(
            f"camera {config.name}",
            "camera",
            module="kits.defect.line.camera",
            settings={"source": dict(config.source), "ring": ring.descriptor},
            descriptors=(ring.descriptor,),
        )
        grid = _grid(recipe)
        return Camera(
            number=number,
            name=config.name,
            recipe=recipe,
            recipe_mark=self._marks[config.recipe],
            grid=grid,
            blocks=grid.blocks(),
            ring=ring,
            slots=Slots(self.config.slots),
            child=Child(spec, self._on_child, self.config.camera_hang_s),
            triage=self._triages[number % len(self._triages)],
        )

    def _triage(self, number: int) -> Child:
        descriptors = tuple(ring.descriptor for ring in self._rings)
        settings = {
            "rings": descriptors,
            "recipes": [str(camera.recipe) for camera in self._configs],
            "triage": self.config.triage,
            "micro_net": self.config.micro_net,
            "micro_net_score": self.config.micro_net_score,
        }
        spec = WorkerSpec(
            f"triage-{number}",
            "triage",
            module="kits.defect.line.triage_worker",
            settings=settings,
            descriptors=descriptors,
        )
        return Child(spec, self._on_child, self.config.triage_hang_s)

    def _recover(self) -> None:
        if lost := self.ledger.recovered:
            self.alarms.once(
                "recovered",
                LEDGER,
                f"{len(lost)} parts had no verdict when the line ended before: triggers "
                f"{lost[0].trigger} to {lost[-1].trigger} are UNINSPECTED",
            )

    # What others tell.

    def _on_child(self, name: str, is_there: bool, why: str) -> None:
        if is_there:
            self.alarms.end("process", name, why)
        else:
            self.alarms.begin("process", name, why)

    def _on_detector_death(self, name: str, why: str) -> None:
        self.alarms.once("process", name, f"{why}; it is being replaced")

    def _trouble(self, kind: str, subject: str, text: str) -> None:
        if text:
            self.alarms.begin(kind, subject, text)
        else:
            self.alarms.end(kind, subject)

    def _alarm(self, alarm: Alarm) -> None:
        state = ALARM if alarm.is_on else CLEARED
        detail = {"kind": alarm.kind, "subject": alarm.subject}
        self.ledger.append(Entry(alarm.trigger, alarm.subject, state, alarm.text, detail))
        self._on_alarm(alarm)


def _grid(recipe: Recipe) -> Grid:
    return Grid(recipe.height_px, recipe.width_px, recipe.tile_px, recipe.halo_px)
