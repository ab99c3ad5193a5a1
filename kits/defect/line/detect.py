"""The detector in service: workers behind the tile scheduler, and a model that may be replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Model
from core.schedule.pool import Pool, WorkerSpec
from core.schedule.wire import Frame
from edge.boxes import nms
from kits.defect.line.detector_file import DetectorFile, Given
from kits.defect.line.tiling import Box
from kits.defect.line.verdict import Found

KIND = "detector"
# Of what was flagged, and of what is looked at for the audit alone.
FLAGGED, AUDIT = 1, 0
# Of a model that brings no suppression of its own.
NMS_IOU = 0.6
# To know what tiles of a size cost.
MEASURED_RUNS = 3


@dataclass(frozen=True)
class DetectorConfig:
    """How tiles are computed."""

    # Worker processes of one thread each.
    workers: int = 2
    # Tiles in one run at most, of all cameras together.
    max_batch: int = 8
    # Tiles that wait at most; a camera that has its share of them gets no more in.
    max_queue: int = 512
    # Each worker has a core of its own, the first worker the last one.
    pin: bool = True
    # Of a bundle, its target; of an ONNX file, the runtime.
    target: str = "auto"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("workers", "max_batch", "max_queue"):
            if getattr(self, name) < 1:
                raise ValueError(f"detector.{name}={getattr(self, name)} is below 1; set it")


@dataclass(frozen=True)
class Service:
    """A model that all workers have loaded, once for each size of tile."""

    file: DetectorFile
    sides_px: tuple[int, ...]  # rising

    def key(self, side_px: int) -> str:
        """Of the pool, for tiles of one size: they cost differently and do not run together."""
        return f"{self.file.key}/{side_px}"

    def side_of(self, tile: Box) -> int:
        """The smallest size that holds a tile."""
        longer = max(tile[2] - tile[0], tile[3] - tile[1])
        return next(side for side in self.sides_px if side >= longer)


class Detector:
    """Looks at tiles; of one event loop."""

    def __init__(
        self,
        config: DetectorConfig,
        sides_px: Collection[int],
        slo_s: float,
        on_death: Callable[[str, str], None],
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            config: how.
            sides_px: of tiles, where the model leaves it open.
            slo_s: what most tiles should take, waiting included.
            on_death: called when a worker died: which, and why. It is replaced.
        """
        self._config = config
        self._sides_px = tuple(sorted(sides_px))
        self._slo_s = slo_s
        self._costs = CostTable("measured by the workers")
        self._scheduler = DeepFlow(self._costs, max_queue=config.max_queue)
        self.pool = Pool(self._scheduler, on_death=on_death)
        self._service: Service | None = None
        self._rows: dict[str, int] = {}  # that may run together, by key
        self._users: Counter[Service] = Counter()  # parts on their way
        self._unused = asyncio.Event()
        self._changing = asyncio.Lock()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Service]:
        """The model in service; it stays loaded for whoever began with it, whatever comes next."""
        service = self._service
        assert service is not None
        self._users[service] += 1
        try:
            yield service
        finally:
            self._users[service] -= 1
            if not self._users[service]:
                self._unused.set()

    async def start(self, file: DetectorFile) -> None:
        """Start the workers and load a model.

        Raises:
            ValueError: it cannot be loaded.
            Gone: a worker died at once.
        """
        await asyncio.gather(*(self.pool.start_worker(spec) for spec in self._specs()))
        await self.swap(file)

    async def swap(self, file: DetectorFile) -> None:
        """Load a model beside the one in service, test it, and switch to it at once or not at all.

        Frames that began with the old one are finished with it; then it is dropped.

        Raises:
            ValueError: it cannot be loaded; the old one stays in service.
        """
        async with self._changing:
            old = self._service
            if old is not None and old.file.sha256 == file.sha256:
                return
            sides_px = (file.given.side_px,) if file.given.side_px else self._sides_px
            new = Service(file, sides_px)
            try:
                for side_px in sides_px:
                    await self._load(new, side_px)
            except BaseException:
                await self._unload(new)
                raise
            self._service = new
            if old is not None:
                await self._unload(old)

    async def _load(self, service: Service, side_px: int) -> None:
        key = service.key(side_px)
        model = Model(key, self._config.max_batch, slo_s=self._slo_s)
        told = await self.pool.load(model, service.file.path, service.file.sha256)
        rows = self._rows[key] = min(one.max_batch for one in told)
        seconds = await self._measure(key, service.file.given, side_px, rows)
        self._costs.measure(key, KIND, seconds)
        # It reads the costs again.
        self._scheduler.set_model(replace(model, max_batch=rows), time.monotonic())

    async def _measure(self, key: str, given: Given, side_px: int, rows: int) -> dict[int, float]:
        """Seconds of a run by rows: what a worker tries by itself is not of this size."""
        process = self.pool.process(next(iter(self.pool.workers)))
        tile = np.full((given.planes, side_px, side_px), 128, np.uint8)
        one = given.batch([tile], side_px)
        seconds: dict[int, float] = {}
        sizes = [1 << power for power in range(rows.bit_length())]
        for size in sizes:
            taken = []
            for _ in range(MEASURED_RUNS):
                future: asyncio.Future[Frame | None] = asyncio.get_running_loop().create_future()
                process.send_run(key, {given.name: [one] * size}, future.set_result)
                frame = await future
                if frame is None or frame.op == "error":
                    why = frame.content["message"] if frame else process.describe_end()
                    raise ValueError(f"{key} cannot look at {size} tiles of {side_px} px: {why}")
                taken.append(frame.seconds)
            # Whatever else the machine does only makes it slower.
            seconds[size] = min(taken)
        return seconds

    async def _unload(self, service: Service) -> None:
        while self._users[service]:
            self._unused.clear()
            await self._unused.wait()
        del self._users[service]
        for side_px in service.sides_px:
            key = service.key(side_px)
            with contextlib.suppress(ValueError):
                # It may not have been loaded.
                await self.pool.unload(key)
            self._costs.forget_model(key)
            self._rows.pop(key, None)

    async def look(
        self,
        service: Service,
        side_px: int,
        tiles: Sequence[tuple[Box, np.ndarray]],
        *,
        deadline_s: float,
        priority: int,
        tenant: str,
    ) -> list[Found]:
        """What the detector sees in tiles that run together.

        Args:
            service: the model.
            side_px: of the tiles; at most `max_batch` of them.
            tiles: where each lies in the frame, and its (P, h, w) uint8.
            deadline_s: on `time.monotonic`.
            priority: FLAGGED or AUDIT.
            tenant: the camera, which has a fair share of the workers.
        Raises:
            Refused, Expired, Lost, Failed: as of `Pool.run`.
        """
        given = service.file.given
        result = await self.pool.run(
            service.key(side_px),
            {given.name: given.batch([planes for _, planes in tiles], side_px)},
            size=len(tiles),
            deadline_s=deadline_s,
            priority=priority,
            tenant=tenant,
        )
        return found_in(result.outputs, service.file, [tile for tile, _ in tiles])

    def together(self, service: Service, side_px: int, number: int) -> int:
        """How many of some tiles to send together: all workers have some, none has too many."""
        share = -(-number // max(1, len(self.pool.workers)))
        return max(1, min(share, self._rows.get(service.key(side_px), 1)))

    async def close(self) -> None:
        """End the workers."""
        await self.pool.close(grace_s=0.5)

    def _specs(self) -> list[WorkerSpec]:
        cores = sorted(os.sched_getaffinity(0), reverse=True)
        return [
            WorkerSpec(
                f"{KIND}-{number}",
                KIND,
                cores=(cores[number % len(cores)],) if self._config.pin else (),
                target=self._config.target,
            )
            for number in range(self._config.workers)
        ]


def found_in(
    outputs: Mapping[str, np.ndarray], file: DetectorFile, tiles: Sequence[Box]
) -> list[Found]:
    """What a model says of tiles.

    Args:
        outputs: `boxes` and `scores`, with `classes` where suppression is behind the model.
        file: whose they are: names and least scores of the classes.
        tiles: where each row lies in the frame.
    Returns:
        boxes above their class's score, in pixels of the frame, cut at the tile.
    """
    boxes, scores = outputs["boxes"], outputs["scores"]
    classes = outputs.get("classes")
    if classes is None:
        least = min((*file.scores, file.score))
        boxes, scores, classes = nms(boxes, scores, iou=NMS_IOU, score=least)
    found = []
    for row, at in np.argwhere(classes >= 0).tolist():
        kind, score = int(classes[row, at]), float(scores[row, at])
        if score < file.threshold(kind):
            continue
        left, top, right, bottom = tiles[row]
        x1, y1, x2, y2 = boxes[row, at].tolist()
        box = (
            min(max(left + x1, left), right),
            min(max(top + y1, top), bottom),
            min(max(left + x2, left), right),
            min(max(top + y2, top), bottom),
        )
        if box[2] > box[0] and box[3] > box[1]:
            found.append(Found(box, score, kind, tiles[row]))
    return found
