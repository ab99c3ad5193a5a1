"""A detector's file, as the line sees it before any worker does: what it says of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.schedule.model_file import BUNDLE, hash_model
from edge.bundle import Bundle
from edge.onnx_file import onnx_signature

DEFAULT = "config/default.json"
DEFAULT_SCORE = 0.25
DTYPES = ("uint8", "float16", "float32")
# Sides of what a model takes whose sides are open.
MULTIPLE_PX = 32


@dataclass(frozen=True)
class Given:
    """A detector's input: (N, planes, height, width)."""

    name: str
    dtype: str  # one of DTYPES; floats are 0..1
    planes: int
    side_px: int | None  # of both sides; None: open

    def batch(self, tiles: Sequence[np.ndarray], side_px: int | None = None) -> np.ndarray:
        """Tiles as the model takes them.

        Args:
            tiles: (p, h, w) uint8 of one size; one plane is repeated where a model takes more.
            side_px: of the result; None: the model's, or the next multiple of 32.
        Returns:
            (N, P, H, W), with zeros at the right and bottom.
        """
        height, width = tiles[0].shape[1:]
        side_px = side_px or self.side_px
        size = (side_px, side_px) if side_px else _multiples(height, width)
        made = np.empty if size == (height, width) else np.zeros
        batch = made((len(tiles), self.planes, *size), self.dtype)
        for place, tile in zip(batch[:, :, :height, :width], tiles, strict=True):
            if self.dtype == "uint8":
                place[:] = tile
            else:
                np.multiply(tile, np.asarray(1 / 255, self.dtype), out=place)
        return batch


def _multiples(height: int, width: int) -> tuple[int, int]:
    return height + -height % MULTIPLE_PX, width + -width % MULTIPLE_PX


@dataclass(frozen=True)
class DetectorFile:
    """A bundle, or a bare ONNX file, whose classes then have numbers for names."""

    path: Path
    sha256: str
    given: Given
    class_names: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()  # below which a box of a class is not reported
    score: float = DEFAULT_SCORE  # of classes that `scores` does not have
    has_template: bool = False  # sees the template of the recipe beside the frame

    @classmethod
    def open(cls, path: Path) -> DetectorFile:
        """Verify a bundle and read what a site may set of it; hash an ONNX file.

        Raises:
            ValueError: it is not to be trusted, or no detector.
            OSError: it cannot be read.
        """
        sha256 = hash_model(path)
        if path.suffix != BUNDLE:
            return cls(path, sha256, _given(path, *onnx_signature(path.read_bytes())))
        bundle = Bundle.open(path)
        given = _given(path, bundle.manifest.inputs, bundle.manifest.outputs)
        content = json.loads(bundle.read(DEFAULT)) if DEFAULT in bundle.files else {}
        settings = _read(content, path)
        if settings["has_template"] and given.planes != 3:
            raise ValueError(
                f"{path.name} has {given.planes} planes, with a template it must have 3"
            )
        return cls(path, sha256, given, **settings)

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


def _given(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> Given:
    names = [tensor.name for tensor in outputs]
    shape = inputs[0].shape if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or not {"boxes", "scores"} <= set(names):
        told = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in inputs)
        raise ValueError(
            f"{path.name} takes {told} and gives {', '.join(names)}; a detector takes "
            "(N, planes, height, width) and gives boxes and scores"
        )
    _, planes, *sides = shape
    fixed = {side for side in sides if isinstance(side, int)}
    is_mixed = len(fixed) > 1 or (bool(fixed) and any(side not in fixed for side in sides))
    if not isinstance(planes, int) or is_mixed:
        raise ValueError(
            f"{path.name} takes {shape}: the planes must be a number, the sides equal or both "
            "open; export it again"
        )
    if inputs[0].dtype not in DTYPES:
        raise ValueError(f"{path.name} takes {inputs[0].dtype}, not one of {', '.join(DTYPES)}")
    return Given(inputs[0].name, inputs[0].dtype, planes, fixed.pop() if fixed else None)


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
