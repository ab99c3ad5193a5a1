"""What clients of the defect service send and get: an image in, its defects out; no torch.

Dimensions: P planes, H rows, W columns, D rows of the bundle's answer.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.arrays import read_npz
from edge.bundle import Bundle
from edge.selftest import VECTORS
from kits.defect.data.pictures import read_pixels
from kits.defect.planes import grey, padded, planes_of

# Larger ones belong on the line (kits.defect.inspect), which looks where triage says.
MAX_SIDE_PX = 2048
DEFAULT, PROVENANCE = "config/default.json", "provenance.json"


@dataclass(frozen=True)
class DefectService:
    """Images as clients know them, and the planes that the bundle's model takes."""

    class_names: tuple[str, ...]
    scores: tuple[float, ...]  # of each class, from which a defect is one
    planes: int
    multiple: int
    has_template: bool
    example: Mapping[str, Any]  # a request: a surface that nobody made

    @classmethod
    def open(cls, path: Path) -> DefectService:
        """Read what a verified bundle says of its inputs.

        Raises:
            ValueError: the bundle is not trusted, or not one of this kit.
        """
        bundle = Bundle.open(path)
        content = json.loads(bundle.read(PROVENANCE))
        facts = content["predicate"]["buildDefinition"].get("internalParameters", {})
        if missing := [name for name in ("planes", "multiple", "class_names") if name not in facts]:
            raise ValueError(
                f"{path} does not say {', '.join(missing)}: it is no bundle of this kit, or an "
                "earlier version wrote it; export the run again"
            )
        site = json.loads(bundle.read(DEFAULT))
        names = tuple(site["class_names"])
        score = site["score_threshold"]
        scores = tuple(score) if isinstance(score, list) else (float(score),) * len(names)
        image = read_npz(bundle.read(VECTORS))["input/image"][0]
        return cls(
            names, scores, int(facts["planes"]), int(facts["multiple"]),
            bool(site["has_template"]), _as_request(image, has_template=bool(site["has_template"])),
        )  # fmt: skip

    @property
    def request_schema(self) -> dict[str, Any]:
        """JSON schema of `decode`'s argument."""
        picture = {"type": "string", "contentEncoding": "base64"}
        properties: dict[str, Any] = {
            "image": {**picture, "description": "a PNG, JPEG, BMP, TIFF or WebP file"}
        }
        if self.has_template:
            properties["template"] = {**picture, "description": "a good part, same size and place"}
        return {
            "type": "object",
            "required": list(properties),
            "properties": properties,
            "additionalProperties": False,
            "examples": [self.example],
        }

    @property
    def response_schema(self) -> dict[str, Any]:
        """JSON schema of what `encode` gives."""
        defect = {
            "type": "object",
            "properties": {
                "class": {"enum": list(self.class_names)},
                "score": {"type": "number"},
                "box_px": {
                    "type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4,
                    "description": "x1, y1, x2, y2",
                },
            },
        }  # fmt: skip
        return {
            "type": "object",
            "properties": {
                "verdict": {"enum": ["OK", "NG"]},
                "defects": {"type": "array", "items": defect},
            },
        }

    def decode(self, request: Any) -> dict[str, np.ndarray]:
        """The planes of one image.

        Args:
            request: `{"image": <base64 of a file>}`, and `template` where the model takes one.
        Raises:
            ValueError: something is missing, unknown, no image or too large; the message says what.
        """
        names = ("image", "template") if self.has_template else ("image",)
        if not isinstance(request, dict):
            raise ValueError(f"request is a {type(request).__name__}, not an object")
        if wrong := sorted(set(request) ^ set(names)):
            raise ValueError(f"{wrong[0]!r} is missing or unknown; send {', '.join(names)}")
        pixels = [_pixels(request[name], name) for name in names]
        if self.planes == 1 or self.has_template:
            pixels = [grey(one) for one in pixels]
        elif pixels[0].ndim == 2:
            pixels = [np.repeat(pixels[0][..., None], 3, 2)]
        planes = padded(planes_of(*pixels), self.multiple)
        return {"image": planes[None].astype(np.float32) / 255}

    def encode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """`{"verdict": .., "defects": [{"class": .., "score": .., "box_px": [..]}, ...]}`."""
        rows = zip(*(outputs[name][0] for name in ("boxes", "scores", "classes")), strict=True)
        defects = [
            {
                "class": self.class_names[int(kind)],
                "score": round(float(score), 4),
                "box_px": [round(float(side), 1) for side in box],
            }
            for box, score, kind in rows
            if kind >= 0 and score >= self.scores[int(kind)]
        ]
        return {"verdict": "NG" if defects else "OK", "defects": defects}


def _pixels(given: Any, name: str) -> np.ndarray:
    if not isinstance(given, str):
        raise ValueError(f"{name} is a {type(given).__name__}, not the base64 of a file")
    try:
        content = base64.b64decode(given, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{name} is not base64: {error}") from error
    try:
        pixels = read_pixels(content)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    if max(pixels.shape[:2]) > MAX_SIDE_PX:
        raise ValueError(
            f"{name} has {pixels.shape[1]} x {pixels.shape[0]} px, a side is above {MAX_SIDE_PX}; "
            "send parts of it, or use kits.defect.inspect"
        )
    return pixels


def _as_request(image: np.ndarray, *, has_template: bool) -> dict[str, str]:
    """A bundle's own input (P, H, W) in 0..1 as a client would send it."""
    pixels = np.rint(image * 255).astype(np.uint8)
    if has_template:
        return {"image": _file(pixels[0]), "template": _file(pixels[1])}
    return {"image": _file(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))}


def _file(pixels: np.ndarray) -> str:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()
