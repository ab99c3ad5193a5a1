"""What a network answered to a split, beside its metrics: a comparison need not ask it again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from core.train.run import write_atomic
from kits.medical.metrics.froc import ScanResult, Target
from kits.medical.retention import Answers, Outline

ANSWERS_FILE = "answers.json"
# Other code may answer otherwise.
CODE = ("infer/*.py", "metrics/*.py", "looking.py", "model.py", "network.py", "sampling.py")


def question(**about: Any) -> dict[str, Any]:
    """What the answers belong to: the data, the split, the network, and the code that asked."""
    return {**about, "code_sha256": _code_version()}


def write_answers(folder: Path, answers: Answers, asked: dict[str, Any]) -> None:
    """Write answers.json."""
    scans = [
        {
            "name": scan.name,
            "patient": scan.patient,
            "targets": [asdict(target) for target in scan.targets],
            "centres_mm": scan.centres_mm.tolist(),
            "scores": scan.scores.tolist(),
        }
        for scan in answers.scans
    ]
    content = {
        "asked": asked,
        "scans": scans,
        "outlines": [asdict(outline) for outline in answers.outlines],
        "textures": dict(answers.textures),
    }
    write_atomic(folder / ANSWERS_FILE, json.dumps(content, allow_nan=False) + "\n")


def read_answers(folder: Path, asked: dict[str, Any]) -> Answers | None:
    """The answers to this very question; None: it was not asked, or differently."""
    path = folder / ANSWERS_FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["asked"] != asked:
        return None
    return Answers(
        tuple(_scan(one) for one in content["scans"]),
        tuple(Outline(**one) for one in content["outlines"]),
        content["textures"],
    )


def _scan(stored: dict[str, Any]) -> ScanResult:
    targets = [{**one, "centre_mm": tuple(one["centre_mm"])} for one in stored["targets"]]
    return ScanResult(
        stored["name"],
        stored["patient"],
        tuple(Target(**one) for one in targets),
        np.array(stored["centres_mm"], np.float64).reshape(-1, 3),
        np.array(stored["scores"], np.float64),
    )


@cache
def _code_version() -> str:
    folder = Path(__file__).parent
    files = sorted({file for pattern in CODE for file in folder.glob(pattern)})
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
