"""What the line says of a part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

# PENDING until one of the others: inspected and good, inspected and not, or not inspected, which
# the line treats as not good and tells at once.
State = Literal["PENDING", "OK", "NG", "UNINSPECTED"]
STATES: tuple[str, ...] = get_args(State)


@dataclass(frozen=True)
class Found:
    """What the detector saw in one tile, in pixels of the frame."""

    box_px: tuple[float, float, float, float]  # left, top, right, bottom
    score: float
    kind: int  # its class
    tile_px: tuple[int, int, int, int]  # where it was looked for


@dataclass(frozen=True)
class Defect:
    """One defect of a part, whatever the number of tiles it lies in."""

    kind: str  # name of its class
    score: float
    box_px: tuple[float, float, float, float]
    length_mm: float
    width_mm: float
    area_mm2: float
    zones: tuple[str, ...] = ()
    breaks: str = ""  # the rule it breaks; empty: tolerated
    was_audited: bool = False  # seen by chance alone: the triage had flagged none of its cells
    crop: str = ""  # file in the output

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to what they can mean."""
        content = asdict(self)
        content["box_px"] = [round(value, 1) for value in self.box_px]
        for name in ("score", "length_mm", "width_mm", "area_mm2"):
            content[name] = round(content[name], 4)
        return content


@dataclass(frozen=True)
class Verdict:
    """Of one trigger."""

    trigger: int
    camera: str
    state: State
    reason: str  # why it is not OK; empty if it is
    frame: str = ""  # name of the image
    defects: tuple[Defect, ...] = ()
    # Stage -> ms after the trigger: captured, triaged, detected, decided.
    times_ms: Mapping[str, float] = field(default_factory=dict)
    num_cells: int = 0  # flagged
    num_tiles: int = 0  # looked at, those for the audit included
    num_audits: int = 0  # blocks that were drawn and looked at
    model: str = ""
    recipe: str = ""

    def to_json(self) -> dict[str, Any]:
        """What the ledger keeps beside trigger, camera, state and reason."""
        return {
            "frame": self.frame,
            "defects": [defect.to_json() for defect in self.defects],
            "times_ms": {name: round(ms, 3) for name, ms in self.times_ms.items()},
            "cells": self.num_cells,
            "tiles": self.num_tiles,
            "audits": self.num_audits,
            "model": self.model,
            "recipe": self.recipe,
        }
