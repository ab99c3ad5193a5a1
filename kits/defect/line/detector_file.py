"""A detector's file, as the line sees it before any worker does: what it says of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.schedule.model_file import BUNDLE, hash_model
from edge.bundle import Bundle

DEFAULT = "config/default.json"
DEFAULT_SCORE = 0.25


@dataclass(frozen=True)
class DetectorFile:
    """A bundle, or a bare ONNX file, whose classes then have numbers for names."""

    path: Path
    sha256: str
    class_names: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()  # below which a box of a class is not reported
    score: float = DEFAULT_SCORE  # of classes that `scores` does not have
    has_template: bool = False  # sees the template of the recipe beside the frame

    @classmethod
    def open(cls, path: Path) -> DetectorFile:
        """Verify a bundle and read what a site may set of it; hash an ONNX file.

        Raises:
            ValueError: it is not to be trusted, or of another kind.
            OSError: it cannot be read.
        """
        sha256 = hash_model(path)
        if path.suffix != BUNDLE:
            return cls(path, sha256)
        bundle = Bundle.open(path)
        content = json.loads(bundle.read(DEFAULT)) if DEFAULT in bundle.files else {}
        return cls(path, sha256, **_read(content, path))

    @property
    def key(self) -> str:
        """As the pool and the ledger name it."""
        return f"detector@{self.sha256[:12]}"

    def name(self, kind: int) -> str:
        """Of a class."""
        return self.class_names[kind] if kind < len(self.class_names) else f"class {kind}"

    def threshold(self, kind: int) -> float:
        """Of a class."""
        return self.scores[kind] if kind < len(self.scores) else self.score


def find_detector(run: Path) -> Path:
    """The file that a command line means: itself, or the bundle of a run's folder.

    Raises:
        ValueError: there is none, or several.
    """
    if not run.is_dir():
        return run
    found = sorted(run.glob("export/*.ebundle")) or sorted(run.glob("*.ebundle"))
    if len(found) != 1:
        raise ValueError(
            f"run={run} has {len(found)} bundles; export it (python -m kits.defect.export), or "
            "name the bundle"
        )
    return found[0]


def _read(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    names = tuple(str(name) for name in content.get("class_names", ()))
    score = content.get("score_threshold", DEFAULT_SCORE)
    scores = tuple(float(one) for one in score) if isinstance(score, list) else ()
    if scores and len(scores) != len(names):
        raise ValueError(
            f"{path.name} has {len(scores)} score thresholds for {len(names)} classes; pack it "
            "again"
        )
    return {
        "class_names": names,
        "scores": scores,
        "score": DEFAULT_SCORE if scores else float(score),
        "has_template": bool(content.get("has_template", False)),
    }
