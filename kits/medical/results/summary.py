"""Every number of a report for programs: `findings.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from kits.medical.findings import TEXTURES, Finding
from kits.medical.results.matching import Box
from kits.medical.results.study import Study

SUMMARY_FILE = "findings.json"
FORMAT = "deepkits.medical.findings/1"
STATUS = "unverified; for research use; not for diagnosis"


def summary(study: Study, box: Box) -> dict[str, Any]:
    """A study as plain values; null where a bound is infinite or a value is not known.

    Args:
        study: what is reported.
        box: around the lungs, in the patient: what a later scan is matched by.
    """
    content = _plain(study)
    grid = study.grid
    content["grid"] = {
        "shape": list(grid.shape),
        "spacing_mm": list(grid.spacing_mm),
        "origin_mm": list(grid.origin_mm),
        "axes": grid.axes.tolist(),
    }
    content["lungs"] = {
        "volume_ml": content.pop("lung_volume_ml"),
        "box_mm": [list(box.low_mm), list(box.high_mm)],
    }
    return {"format": FORMAT, "status": STATUS, **content}


def write_summary(study: Study, box: Box, path: Path) -> Path:
    """Write `findings.json`; the same study gives the same bytes."""
    text = json.dumps(summary(study, box), ensure_ascii=False, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Finding):
        return {
            "score": value.score,
            "centre_mm": list(value.centre_mm),
            "window": [[part.start, part.stop] for part in value.window],
            "num_voxels": int(value.mask.sum()),
            "texture": dict(zip(TEXTURES, value.texture, strict=True)),
        }
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name != "grid"]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
