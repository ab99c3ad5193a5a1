"""A triage process: reads frames where they lie in the rings, says which cells to look at.

`python -m kits.defect.line.triage_worker <descriptor> <json>`: started by `child.py` alone.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.schedule.worker import enter
from kits.defect.line.answering import Answer, leave, serve
from kits.defect.line.cells import OpenTriage, Triage
from kits.defect.line.micro_net import MicroNet
from kits.defect.line.recipe import read_recipe
from kits.defect.line.ring import Ring


class TriageWorker:
    """A triage for each camera, and the rings they read."""

    def __init__(
        self, rings: Sequence[Ring], triages: Sequence[Triage], micro_net: MicroNet | None
    ) -> None:
        self._rings = rings
        self._triages = triages
        self._micro_net = micro_net

    def look(self, request: Mapping[str, np.ndarray]) -> Answer:
        """Flag the cells of a frame.

        Args:
            request: `ask`: camera, slot, trigger, until when (ns on `time.monotonic_ns`).
        Returns:
            `told`: when it began and was done (ns); `flagged`, `scores`, `shift` as in `Cells`.
        Raises:
            ValueError: too late, or the slot does not hold this frame as it was written.
        """
        camera, slot, trigger, latest_ns = request["ask"].tolist()
        start_ns = time.monotonic_ns()
        if start_ns > latest_ns:
            raise ValueError("overload: the triage came to it too late")
        frame = self._rings[camera].read(slot, trigger)
        cells = self._triages[camera].look(frame)
        flagged = cells.flagged
        if self._micro_net is not None:
            flagged = self._micro_net.keep(frame, flagged)
        return {
            "told": np.array([start_ns, time.monotonic_ns()]),
            "shift": np.array(cells.shift_px, np.float64),
            "flagged": flagged,
            "scores": np.asarray(cells.scores, np.float32),
        }


def open_triages(function: str, paths: Sequence[str]) -> list[Triage]:
    """One triage for each camera.

    Args:
        function: "module:function" that makes one from a recipe.
        paths: of the cameras' recipes.
    """
    module, _, name = function.partition(":")
    open_one: OpenTriage = getattr(importlib.import_module(module), name)
    recipes = {path: read_recipe(Path(path)) for path in set(paths)}
    return [open_one(recipes[path]) for path in paths]


def main(arguments: list[str]) -> None:
    """Take over the connection, read the recipes, and answer."""
    connection, settings = enter(arguments)
    serve(connection, _open(settings).look)
    leave()


def _open(settings: Mapping[str, Any]) -> TriageWorker:
    try:
        rings = [Ring.attach(descriptor) for descriptor in settings["rings"]]
        triages = open_triages(settings["triage"], settings["recipes"])
        file = settings["micro_net"]
        micro_net = MicroNet.open(Path(file), settings["micro_net_score"]) if file else None
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(str(error)) from error
    return TriageWorker(rings, triages, micro_net)


if __name__ == "__main__":
    main(sys.argv[1:])
