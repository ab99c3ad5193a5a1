"""LabelMe: a JSON file for each image; of a shape its box, of a line its ends and length too."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

from kits.defect.data.config import LabelmeData
from kits.defect.data.labelled_folder import Entry, FolderImages, Label, images_below, root_of
from kits.defect.data.validate import Problems

# Shape -> fewest points.
SHAPES = {"rectangle": 2, "polygon": 3, "circle": 2, "line": 2, "linestrip": 2}
# A line has no width; its box is this much wider on each side, to have an area.
LINE_MARGIN_PX = 1.0

Point = tuple[float, float]


def open_labelme(cfg: LabelmeData) -> FolderImages:
    """Read every JSON file of a folder.

    Raises:
        ValueError: names everything that is wrong with it.
    """
    root = root_of(cfg)
    problems = Problems(cfg.path, cfg.leave_out)
    entries = [
        entry
        for file in sorted(root.rglob("*.json"))
        if (entry := _read(file, root, problems)) is not None
    ]
    labelled = {entry.image for entry in entries}
    for path in images_below(root, cfg):
        if path not in labelled:
            name = path.relative_to(root).as_posix()
            problems.add(name, "has no JSON file; a clean part has one without shapes", name)
            entries.append(Entry(path, name))
    return FolderImages(cfg, entries, problems, None)


def _read(file: Path, root: Path, problems: Problems) -> Entry | None:
    labels_file = file.relative_to(root).as_posix()
    try:
        content = json.loads(file.read_bytes())
        shapes = content["shapes"]
        # Written on Windows as often as not.
        image = file.parent / str(content["imagePath"]).replace("\\", "/")
    except (ValueError, KeyError, TypeError):
        problems.add(labels_file, "is not JSON with shapes and imagePath")
        return None
    # Not resolved: an image may be a link to elsewhere.
    image = Path(os.path.normpath(image))
    if root not in image.parents:
        problems.add(labels_file, f"imagePath={content['imagePath']!r} is outside of data.path")
        return None
    name = image.relative_to(root).as_posix()
    entry = Entry(image, labels_file)
    size = (content.get("imageWidth"), content.get("imageHeight"))
    entry.stated_size = size if None not in size else None  # type: ignore[assignment]
    for number, shape in enumerate(shapes, start=1):
        label = _label(f"shape {number}", shape)
        if isinstance(label, str):
            problems.add(f"{labels_file} shape {number}", label, name)
        else:
            entry.labels.append(label)
    return entry


def _label(place: str, shape: Any) -> Label | str:
    """A shape's label, or what is wrong with it."""
    try:
        name, kind = str(shape["label"]), str(shape.get("shape_type") or "polygon")
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return "has no label, or points that are not pairs of numbers"
    if kind not in SHAPES:
        return f"shape_type={kind!r} is not one of {', '.join(SHAPES)}"
    if len(points) < SHAPES[kind]:
        return f"has {len(points)} points; a {kind} has {SHAPES[kind]} or more"
    if kind == "circle":
        (x, y), radius = points[0], math.dist(points[0], points[1])
        points = [(x - radius, y - radius), (x + radius, y + radius)]
    margin = LINE_MARGIN_PX if kind in ("line", "linestrip") else 0.0
    xs, ys = [x for x, _ in points], [y for _, y in points]
    box = (min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin)
    if not margin:
        return Label(place, name, box)
    length = sum(math.dist(*pair) for pair in itertools.pairwise(points))
    return Label(place, name, box, (points[0], points[-1]), length)
