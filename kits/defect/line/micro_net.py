"""A small network over single cells: of those that the triage flagged, which to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.schedule.model_file import open_model
from edge.pipeline import Pipeline
from kits.defect.line.cells import CELL_PX

# Cells in one run.
MAX_CELLS = 256


@dataclass(frozen=True)
class MicroNet:
    """A model of (N, 1, 64, 64) in 0..1 whose only output has one score a cell."""

    pipeline: Pipeline
    score: float

    @classmethod
    def open(cls, file: Path, score: float) -> MicroNet:
        """Load a bundle or an ONNX file.

        Args:
            file: the model.
            score: a cell below is left out; it may still be audited.
        Raises:
            ValueError: it is no such model.
        """
        pipeline = open_model(file, "")
        shapes = [tensor.shape[1:] for tensor in pipeline.inputs]
        if shapes != [(1, CELL_PX, CELL_PX)] or len(pipeline.outputs) != 1:
            raise ValueError(
                f"{file.name} takes {shapes} and gives {len(pipeline.outputs)} outputs; a "
                f"micro-net takes (1, {CELL_PX}, {CELL_PX}) and gives one"
            )
        return cls(pipeline, score)

    def keep(self, frame: np.ndarray, flagged: np.ndarray) -> np.ndarray:
        """The flagged cells that reach the score.

        Args:
            frame: (H, W) uint8.
            flagged: (rows, columns) bool.
        """
        places = np.argwhere(flagged)
        if not len(places):
            return flagged
        kept = np.zeros_like(flagged)
        for start in range(0, len(places), MAX_CELLS):
            some = places[start : start + MAX_CELLS]
            scores = self._scores(np.stack([_cell(frame, row, column) for row, column in some]))
            kept[tuple(some[scores >= self.score].T)] = True
        return kept

    def _scores(self, cells: np.ndarray) -> np.ndarray:
        (given,), (output,) = self.pipeline.inputs, self.pipeline.outputs
        planes = cells[:, None]
        if given.dtype != "uint8":
            planes = planes.astype(given.dtype) / 255
        found = self.pipeline.predict({given.name: planes})[output.name]
        return found.reshape(len(cells), -1).max(axis=1)


def _cell(frame: np.ndarray, row: int, column: int) -> np.ndarray:
    """A cell; at the right and bottom the last whole 64 px."""
    top = max(0, min(row * CELL_PX, frame.shape[0] - CELL_PX))
    left = max(0, min(column * CELL_PX, frame.shape[1] - CELL_PX))
    cell = frame[top : top + CELL_PX, left : left + CELL_PX]
    rest = CELL_PX - cell.shape[0], CELL_PX - cell.shape[1]
    return np.pad(cell, ((0, rest[0]), (0, rest[1])), "edge") if any(rest) else cell
