"""What all items share: what they say while they run, and where results go."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.serve.study import ROOT
from core.train.run import environment, write_atomic

RESULTS = ROOT / "benchmarks" / "results" / "defect.json"
PACKAGES = (
    "deepkits",
    "numpy",
    "onnxruntime",
    "openvino",
    "sahi",
    "torch",
    "ultralytics",
    "uvloop",
)


@dataclass(frozen=True)
class Study:
    """How the items are run."""

    quick: bool = False  # to see that it works; its numbers are noise
    seconds: float = 0.0  # of each run; 0: as the item has it

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def write_part(name: str, found: Mapping[str, Any], path: Path, *, quick: bool) -> None:
    """Put an item's result beside those of the others; each says when and where it was taken."""
    whole = json.loads(path.read_text()) if path.exists() else {}
    machine = {k: v for k, v in environment().items() if k not in ("command", "packages")}
    whole[name] = {
        "machine": machine,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "load_average": round(os.getloadavg()[0], 2),
        "quick": quick,
        **found,
    }
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps(whole, indent=1) + "\n")
