"""`benchmarks/results/deepflow.json`: a part per tier, each with the machine it was measured on."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from core.train.run import environment, write_atomic

RESULTS = Path(__file__).parents[1] / "results" / "deepflow.json"
PACKAGES = ("numpy", "onnxruntime", "openvino", "scipy", "torch")


def record(part: str, content: dict[str, Any]) -> None:
    """Replace one part of the results."""
    machine = {k: v for k, v in environment().items() if k not in ("command", "packages")}
    machine["load_average"] = round(os.getloadavg()[0], 1)
    versions = {name: metadata.version(name) for name in PACKAGES}
    found = load() | {part: {"machine": machine, "versions": versions, **content}}
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps(found, indent=1) + "\n")


def load() -> dict[str, Any]:
    """All parts that were measured; empty before the first."""
    if not RESULTS.exists():
        return {}
    content: dict[str, Any] = json.loads(RESULTS.read_text())
    return content
