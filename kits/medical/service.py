"""What clients of the medical service send and get: crops around a place, in JSON; no torch.

D slices, H rows, W columns of a crop, whose middle is the place that somebody points at. Whole
scans are the report verb's: it knows positions, and refuses what cannot be measured.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from edge.arrays import read_npz
from edge.bundle import Bundle
from edge.selftest import VECTORS

MAX_CROPS, MAX_VOXELS = 32, 4_000_000  # of a request
NEEDED = ("multiple", "mask_threshold", "textures")
LOWEST_HU, HIGHEST_HU = -32768, 32767


@dataclass(frozen=True)
class MedicalService:
    """Crops as clients know them, and the arrays that the bundle's model takes."""

    multiple: int  # of a crop's sizes
    mask_threshold: float  # of a voxel's probability
    textures: tuple[str, ...]
    example: Mapping[str, Any]  # a request: nobody's lung

    @classmethod
    def open(cls, path: Path) -> MedicalService:
        """Read what a verified bundle says of its network.

        Raises:
            ValueError: the bundle is not trusted, or not one of this kit.
        """
        bundle = Bundle.open(path)
        content = json.loads(bundle.read("provenance.json"))
        facts = content["predicate"]["buildDefinition"].get("internalParameters", {})
        if missing := [name for name in NEEDED if name not in facts]:
            raise ValueError(
                f"{path} does not say {', '.join(missing)}: it is no bundle of this kit, or an "
                "earlier version wrote it; export the run again"
            )
        image = read_npz(bundle.read(VECTORS))["input/image"][0, 0]
        return cls(
            int(facts["multiple"]),
            float(facts["mask_threshold"]),
            tuple(facts["textures"]),
            {"crops": [as_crop(image)]},
        )

    @property
    def request_schema(self) -> dict[str, Any]:
        """JSON schema of `decode`'s argument."""
        size = {"type": "integer", "minimum": self.multiple, "multipleOf": self.multiple}
        crop = {
            "type": "object",
            "required": ["shape", "hu"],
            "properties": {
                "shape": {
                    "type": "array",
                    "items": size,
                    "minItems": 3,
                    "maxItems": 3,
                    "description": "slices, rows, columns; alike in all crops of a request",
                },
                "hu": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": "Hounsfield units, int16, little-endian, columns fastest",
                },
            },
            "additionalProperties": False,
        }
        crops = {"type": "array", "minItems": 1, "maxItems": MAX_CROPS, "items": crop}
        return {
            "type": "object",
            "required": ["crops"],
            "properties": {"crops": crops},
            "additionalProperties": False,
            "examples": [self.example],
        }

    @property
    def response_schema(self) -> dict[str, Any]:
        """JSON schema of what `encode` gives."""
        nodule = {
            "type": "object",
            "properties": {
                "score": {"type": "number", "description": "that a nodule's centre is near"},
                "textures": {"type": "object", "additionalProperties": {"type": "number"}},
                "num_voxels": {"type": "integer", "description": "of the mask"},
                "mask": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": "one bit per voxel of the crop, columns fastest, high bit first",
                },
            },
        }
        return {
            "type": "object",
            "properties": {
                "nodules": {"type": "array", "items": nodule},
                "notice": {"type": "string"},
            },
        }

    def decode(self, request: Any) -> dict[str, np.ndarray]:
        """The crops as one batch.

        Args:
            request: `{"crops": [{"shape": [D, H, W], "hu": "<base64>"}, ...]}`.
        Raises:
            ValueError: something is missing, unknown or of another size; the message names where.
        """
        if not isinstance(request, dict) or set(request) != {"crops"}:
            raise ValueError("request is not an object with crops alone; send {'crops': [...]}")
        crops = request["crops"]
        if not isinstance(crops, list) or not 1 <= len(crops) <= MAX_CROPS:
            raise ValueError(f"crops is not a list of 1 to {MAX_CROPS} crops")
        images = [self._image(crop, f"crops[{at}]") for at, crop in enumerate(crops)]
        for at, image in enumerate(images):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"crops[{at}].shape={list(image.shape)} is not that of crops[0]; send crops of "
                    "one shape"
                )
        if sum(image.size for image in images) > MAX_VOXELS:
            raise ValueError(f"crops have more than {MAX_VOXELS} voxels; send fewer at a time")
        return {"image": np.stack(images)[:, None]}

    def encode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """`{"nodules": [...]}`, in the order of the crops: what hangs together at the middle."""
        rows = zip(outputs["mask"][:, 0], outputs["heat"][:, 0], outputs["texture"], strict=True)
        return {
            "nodules": [self._nodule(*row) for row in rows],
            "notice": "unverified, for research use",
        }

    def _image(self, crop: Any, where: str) -> np.ndarray:
        if not isinstance(crop, dict) or set(crop) != {"shape", "hu"}:
            raise ValueError(f"{where} is not an object with shape and hu alone")
        shape = crop["shape"]
        is_list = isinstance(shape, list) and len(shape) == 3
        if not is_list or any(type(n) is not int or n < 1 or n % self.multiple for n in shape):
            raise ValueError(
                f"{where}.shape={shape!r} is not three multiples of {self.multiple}; cut another"
            )
        try:
            content = base64.b64decode(crop["hu"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise ValueError(f"{where}.hu is not base64") from None
        wanted = 2 * shape[0] * shape[1] * shape[2]
        if len(content) != wanted:
            raise ValueError(f"{where}.hu holds {len(content)} bytes; its shape asks for {wanted}")
        return np.frombuffer(content, "<i2").reshape(shape).astype(np.float32)

    def _nodule(self, mask: np.ndarray, heat: np.ndarray, texture: np.ndarray) -> dict[str, Any]:
        level = np.log(self.mask_threshold / (1 - self.mask_threshold))
        part = middle_part(mask >= level)
        # What lies in the middle half along each axis is what was pointed at.
        near = heat[tuple(slice(size // 4, size - size // 4) for size in heat.shape)]
        place = np.unravel_index(int(near.argmax()), near.shape)
        cell = tuple(int(p) + size // 4 for p, size in zip(place, heat.shape, strict=True))
        logits = texture[:, *cell].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return {
            "score": float(1 / (1 + np.exp(-float(near.max())))),
            "textures": dict(zip(self.textures, shares.tolist(), strict=True)),
            "num_voxels": int(part.sum()),
            "mask": base64.b64encode(np.packbits(part)).decode(),
        }


def middle_part(mask: np.ndarray) -> np.ndarray:
    """(D, H, W) bool: the connected part that comes nearest to the middle; nothing of nothing."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    places = np.argwhere(mask)
    nearest = ((places - (np.array(mask.shape) - 1) / 2) ** 2).sum(1).argmin()
    found: np.ndarray = labels == labels[tuple(places[nearest])]
    return found


def as_crop(image: np.ndarray) -> dict[str, Any]:
    """(D, H, W) HU as a client sends them."""
    rounded = np.clip(np.rint(image), LOWEST_HU, HIGHEST_HU).astype("<i2")
    return {"shape": list(image.shape), "hu": base64.b64encode(rounded.tobytes()).decode()}
