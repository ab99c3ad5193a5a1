"""What a run of the line looked like, for its report: counts, times, and where things were."""

from __future__ import annotations

import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kits.defect.line.cells import CELL_PX, num_cells
from kits.defect.line.verdict import Verdict

if TYPE_CHECKING:
    from kits.defect.line.inspection import Camera, Part

# Parts that are shown one by one.
MAX_SHOWN = 60
# Of the picture behind a heat map, how many pixels of the frame one of its stands for.
BACKGROUND_STEP = 8
WINDOW_S = 1.0
# Of a part, in this order; one that is UNINSPECTED goes from any of them to the last.
STAGES = ("captured", "triaged", "detected", "decided")


@dataclass
class CameraTally:
    """Of one camera."""

    states: Counter[str]
    flagged: np.ndarray  # (rows, columns) int64: how often a cell was flagged
    defects: np.ndarray  # (rows, columns) int64: how often a defect's centre lay there
    size_px: tuple[int, int]
    background: np.ndarray | None = None  # a frame, (H / 8, W / 8) uint8
    num_looked: int = 0  # parts whose cells are known


@dataclass
class Tally:
    """Of a run."""

    cameras: dict[str, CameraTally] = field(default_factory=dict)
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)  # of what is UNINSPECTED, shortened
    latency_ms: array[float] = field(default_factory=lambda: array("f"))
    stages_ms: dict[str, array[float]] = field(
        default_factory=lambda: {stage: array("f") for stage in STAGES}
    )
    tiles: int = 0
    cells: int = 0
    bad: deque[Verdict] = field(default_factory=lambda: deque(maxlen=MAX_SHOWN))
    uninspected: deque[Verdict] = field(default_factory=lambda: deque(maxlen=MAX_SHOWN))
    # Second of the run -> states.
    seconds: dict[int, Counter[str]] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)

    def add(self, verdict: Verdict, part: Part) -> None:
        """A part has its verdict."""
        self.states[verdict.state] += 1
        second = int((time.monotonic() - self.started_s) / WINDOW_S)
        self.seconds.setdefault(second, Counter())[verdict.state] += 1
        camera = self._of(part.camera)
        camera.states[verdict.state] += 1
        self.latency_ms.append(verdict.times_ms.get("decided", 0.0))
        self._add_stages(verdict)
        self.tiles += verdict.num_tiles
        self.cells += verdict.num_cells
        if part.cells is not None:
            camera.num_looked += 1
            camera.flagged += part.cells.flagged
        for defect in verdict.defects:
            left, top, right, bottom = defect.box_px
            row, column = int((top + bottom) / 2 // CELL_PX), int((left + right) / 2 // CELL_PX)
            rows, columns = camera.defects.shape
            camera.defects[min(row, rows - 1), min(column, columns - 1)] += 1
        if verdict.state == "NG":
            self.bad.append(verdict)
        elif verdict.state == "UNINSPECTED":
            self.uninspected.append(verdict)
            self.reasons[shorten(verdict.reason)] += 1

    def wants_background(self, camera: Camera) -> bool:
        """Whether a frame of a camera would be shown."""
        return self._of(camera).background is None

    def set_background(self, camera: Camera, frame: np.ndarray) -> None:
        """Keep a small picture of a frame."""
        self._of(camera).background = frame[::BACKGROUND_STEP, ::BACKGROUND_STEP].copy()

    def _of(self, camera: Camera) -> CameraTally:
        found = self.cameras.get(camera.name)
        if found is None:
            size = camera.recipe.height_px, camera.recipe.width_px
            zeros = np.zeros(num_cells(*size), np.int64)
            found = CameraTally(Counter(), zeros, zeros.copy(), size)
            self.cameras[camera.name] = found
        return found

    def _add_stages(self, verdict: Verdict) -> None:
        before = 0.0
        for stage, ms in verdict.times_ms.items():
            self.stages_ms[stage].append(ms - before)
            before = ms


def shorten(reason: str) -> str:
    """A reason without what is different in each part."""
    words = (word for word in reason.split() if not any(char.isdigit() for char in word))
    return " ".join(words)[:100]
