"""The detector in service: workers behind the tile scheduler, and a model that may be replaced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Model
from core.schedule.pool import LoadedModel, Pool, WorkerSpec
from edge.boxes import nms
from edge.manifest import Tensor
from kits.defect.line.detector_file import DetectorFile
from kits.defect.line.tiling import Box
from kits.defect.line.verdict import Found

KIND = "detector"
# Of what was flagged, and of what is looked at for the audit alone.
FLAGGED, AUDIT = 1, 0
# Of a model that brings no suppression of its own.
NMS_IOU = 0.6
MULTIPLE_PX = 32


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
    """A model that all workers have loaded."""

    file: DetectorFile
    given: Tensor
    planes: int

    def input_of(self, planes: np.ndarray) -> np.ndarray:
        """A tile as the model takes it.

        Args:
            planes: (P, h, w) uint8.
        Returns:
            (1, P, H, W), with zeros at the right and bottom up to the model's size.
        """
        wanted = []
        for size, axis in zip(planes.shape[1:], self.given.shape[2:], strict=True):
            wanted.append(axis if isinstance(axis, int) else size + -size % MULTIPLE_PX)
        if len(planes) < self.planes:
            planes = np.broadcast_to(planes, (self.planes, *planes.shape[1:]))
        if tuple(wanted) != planes.shape[1:]:
            rest = [(0, want - size) for want, size in zip(wanted, planes.shape[1:], strict=True)]
            planes = np.pad(planes, [(0, 0), *rest])
        if self.given.dtype == "uint8":
            return np.ascontiguousarray(planes[None])
        scale = np.asarray(1 / 255, self.given.dtype)
        return planes[None].astype(self.given.dtype) * scale


class Detector:
    """Looks at tiles; of one event loop."""

    def __init__(
        self, config: DetectorConfig, slo_s: float, on_death: Callable[[str, str], None]
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            config: how.
            slo_s: what most tiles should take, waiting included.
            on_death: called when a worker died: which, and why. It is replaced.
        """
        self._config = config
        self._slo_s = slo_s
        self._costs = CostTable("measured by the workers")
        scheduler = DeepFlow(self._costs, max_queue=config.max_queue)
        self.pool = Pool(scheduler, on_death=on_death, on_loaded=self._on_loaded)
        self._service: Service | None = None
        self._changing = asyncio.Lock()

    @property
    def service(self) -> Service:
        """The model in service; whoever looks at a frame keeps the one it began with."""
        assert self._service is not None
        return self._service

    async def start(self, file: DetectorFile) -> None:
        """Start the workers and load a model.

        Raises:
            ValueError: it cannot be loaded, or is no detector.
            Gone: a worker died at once.
        """
        await asyncio.gather(*(self.pool.start_worker(spec) for spec in self._specs()))
        await self.swap(file)

    async def swap(self, file: DetectorFile) -> None:
        """Load a model beside the one in service, test it, and switch to it at once or not at all.

        Frames that began with the old one are finished with it; then it is dropped.

        Raises:
            ValueError: it cannot be loaded, or is no detector; the old one stays in service.
        """
        async with self._changing:
            old = self._service
            if old is not None and old.file.sha256 == file.sha256:
                return
            model = Model(file.key, self._config.max_batch, slo_s=self._slo_s)
            told = await self.pool.load(model, file.path, file.sha256)
            try:
                self._service = _check(file, told[0])
            except ValueError:
                await self.pool.unload(file.key)
                raise
            if old is not None:
                await self.pool.unload(old.file.key)
                self._costs.forget_model(old.file.key)

    async def look(
        self,
        service: Service,
        planes: np.ndarray,
        tile: Box,
        *,
        deadline_s: float,
        priority: int,
        tenant: str,
    ) -> list[Found]:
        """What the detector sees in a tile.

        Args:
            service: the model.
            planes: (P, h, w) uint8.
            tile: where it lies in the frame.
            deadline_s: on `time.monotonic`.
            priority: FLAGGED or AUDIT.
            tenant: the camera, which has a fair share of the workers.
        Raises:
            Refused, Expired, Lost, Failed: as of `Pool.run`.
        """
        result = await self.pool.run(
            service.file.key,
            {service.given.name: service.input_of(planes)},
            deadline_s=deadline_s,
            priority=priority,
            tenant=tenant,
        )
        return _found(result.outputs, service.file, tile)

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

    def _on_loaded(self, spec: WorkerSpec, loaded: LoadedModel) -> None:
        # What was learnt at work counts more than what a worker measures while others compute.
        if loaded.seconds and self._costs.seconds(loaded.key, spec.kind) is None:
            self._costs.measure(loaded.key, spec.kind, loaded.seconds)


def _check(file: DetectorFile, told: LoadedModel) -> Service:
    names = [tensor.name for tensor in told.outputs]
    has_boxes = {"boxes", "scores"} <= set(names)
    if len(told.inputs) != 1 or len(told.inputs[0].shape) != 4 or not has_boxes:
        given = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in told.inputs)
        raise ValueError(
            f"{file.path.name} takes {given} and gives {', '.join(names)}; a detector takes "
            "(N, C, H, W) and gives boxes and scores"
        )
    (given,) = told.inputs
    planes = given.shape[1]
    if not isinstance(planes, int):
        raise ValueError(f"{file.path.name} does not say how many planes it takes; export it again")
    if file.has_template and planes != 3:
        raise ValueError(f"{file.path.name} has {planes} planes, with a template it must have 3")
    return Service(file, given, planes)


def _found(outputs: Mapping[str, np.ndarray], file: DetectorFile, tile: Box) -> list[Found]:
    """Boxes above their class's score, in pixels of the frame, cut at the tile."""
    boxes, scores = outputs["boxes"], outputs["scores"]
    classes = outputs.get("classes")
    if classes is None:
        least = min((*file.scores, file.score))
        boxes, scores, classes = nms(boxes, scores, iou=NMS_IOU, score=least)
    left, top, right, bottom = tile
    found = []
    for at in np.flatnonzero(classes[0] >= 0).tolist():
        kind, score = int(classes[0, at]), float(scores[0, at])
        if score < file.threshold(kind):
            continue
        x1, y1, x2, y2 = boxes[0, at].tolist()
        box = (
            min(max(left + x1, left), right),
            min(max(top + y1, top), bottom),
            min(max(left + x2, left), right),
            min(max(top + y2, top), bottom),
        )
        if box[2] > box[0] and box[3] > box[1]:
            found.append(Found(box, score, kind, tile))
    return found


def open_detector(path: Path, recipe_sha256: str | None) -> DetectorFile:
    """A detector's file, if it is the one that a recipe was learned with.

    Raises:
        ValueError: it is another, or cannot be used.
    """
    file = DetectorFile.open(path)
    if recipe_sha256 is not None and file.sha256 != recipe_sha256:
        raise ValueError(
            f"{path.name} has sha256 {file.sha256[:12]}, the recipe is for {recipe_sha256[:12]}; "
            "learn the recipe with this detector, or use that one"
        )
    return file
