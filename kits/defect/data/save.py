"""An image set written to a folder in the form of COCO, so that other tools can read it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kits.defect.data.image_set import ImageSet, LabelledImage

# Quick to write: a 4K frame of grain hardly shrinks anyway.
PNG_LEVEL = 1


def save_coco(images: ImageSet, names: Sequence[str], folder: Path) -> None:
    """Write images, their templates and one annotation file.

    An annotation carries what is known beyond its box: `length_mm`, `width_mm`, `segment_px` and
    `contrast_to_noise`; an image `mm_per_px`.

    Args:
        images: where they come from.
        names: which of them.
        folder: gets images/, templates/ where there are some, and labels.json.

    Raises:
        ValueError: there is something in the folder already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output={str(folder)!r} is not empty; choose another folder")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    if images.has_template:
        (folder / "templates").mkdir()
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        image = images.load(name)
        file = f"{Path(name).stem}.png"
        Image.fromarray(image.pixels).save(folder / "images" / file, compress_level=PNG_LEVEL)
        if image.template is not None:
            path = folder / "templates" / file
            Image.fromarray(image.template).save(path, compress_level=PNG_LEVEL)
        height, width = image.pixels.shape[:2]
        entry = {"id": number, "file_name": f"images/{file}", "width": width, "height": height}
        listed.append(entry | ({"mm_per_px": image.mm_per_px} if image.mm_per_px else {}))
        annotations += _annotations(image, number, len(annotations))
    categories = [{"id": n, "name": name} for n, name in enumerate(images.class_names)]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(content), encoding="utf-8")


def _annotations(image: LabelledImage, image_id: int, first_id: int) -> list[dict[str, Any]]:
    found = []
    for number, (box, kind) in enumerate(zip(image.boxes_px, image.classes, strict=True)):
        x1, y1, x2, y2 = (float(side) for side in box)
        annotation = {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": int(kind),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for key, values in (
            ("length_mm", image.lengths_mm),
            ("width_mm", image.widths_mm),
            ("contrast_to_noise", image.contrasts_to_noise),
        ):
            if values is not None and math.isfinite(values[number]):
                annotation[key] = float(values[number])
        if image.segments_px is not None and math.isfinite(image.segments_px[number, 0, 0]):
            annotation["segment_px"] = image.segments_px[number].tolist()
        found.append(annotation)
    return found
