"""YOLO: a text file for each image, its lines `class centre-x centre-y width height` as shares.

labels/ mirrors images/, or the text files lie beside the images. An image without one is clean, as
the form has it. Lines with more numbers are polygons, of which the box is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from core.kit import Split
from kits.defect.data.config import YoloData
from kits.defect.data.labelled_folder import Entry, FolderImages, Label, images_below, root_of
from kits.defect.data.pictures import size_of
from kits.defect.data.validate import Problems

KEYS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}


def open_yolo(cfg: YoloData) -> FolderImages:
    """Read the label file of every image of a folder.

    Raises:
        ValueError: names everything that is wrong with it.
    """
    root = root_of(cfg)
    problems = Problems(cfg.path, cfg.leave_out)
    settings = _settings(root)
    class_names = cfg.class_names or _class_names(root, settings)
    if class_names is None:
        raise ValueError(
            f"data.path={cfg.path!r} has no data.yaml with names and no classes.txt; "
            "set data.class_names"
        )
    splits = dict(_stated_splits(root, settings))
    entries, label_files = [], set()
    for image in images_below(root, cfg):
        file = _label_file(image, root)
        label_files.add(file)
        folders = [split for path, split in splits.items() if path in (image, *image.parents)]
        entry = Entry(image, file.relative_to(root).as_posix(), split=next(iter(folders), None))
        if file.is_file():
            _read(file, entry, class_names, root, problems)
        entries.append(entry)
    for folder in {file.parent for file in label_files}:
        for file in sorted(set(folder.glob("*.txt")) - label_files):
            if file.name not in ("classes.txt", "train.txt", "val.txt", "test.txt"):
                problems.add(file.relative_to(root).as_posix(), "has no image of its name")
    return FolderImages(cfg, entries, problems, class_names)


def _settings(root: Path) -> dict[str, Any]:
    found = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    for path in found:
        try:
            content = yaml.safe_load(path.read_bytes())
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML: {error}; mend it") from error
        if isinstance(content, dict) and "names" in content:
            return content
    return {}


def _class_names(root: Path, settings: dict[str, Any]) -> tuple[str, ...] | None:
    names = settings.get("names")
    if isinstance(names, dict):
        return tuple(str(names[key]) for key in sorted(names))
    if isinstance(names, list):
        return tuple(str(name) for name in names)
    listed = [path for path in (root / "classes.txt", root / "labels/classes.txt") if path.exists()]
    if listed:
        return tuple(line for line in listed[0].read_text(encoding="utf-8").split("\n") if line)
    return None


def _stated_splits(root: Path, settings: dict[str, Any]) -> Iterator[tuple[Path, Split]]:
    """Folders and images, each with the split that data.yaml says they are of."""
    stated = Path(str(settings.get("path", ".")))
    base = root / stated if (root / stated).is_dir() else root
    for key, split in KEYS.items():
        given = settings.get(key) or []
        for place in given if isinstance(given, list) else [given]:
            path = base / str(place)
            if path.suffix == ".txt" and path.is_file():
                for line in path.read_text(encoding="utf-8").split():
                    yield _plain(base / line), split
            elif path.exists():
                yield _plain(path), split


def _plain(path: Path) -> Path:
    """Without `..`, but not resolved: an image may be a link to elsewhere."""
    return Path(os.path.normpath(path))


def _label_file(image: Path, root: Path) -> Path:
    parts = list(image.relative_to(root).parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _read(
    file: Path, entry: Entry, class_names: tuple[str, ...], root: Path, problems: Problems
) -> None:
    name = entry.image.relative_to(root).as_posix()
    try:
        width, height = size_of(entry.image.read_bytes())
    except ValueError:
        return  # named when the images are looked at
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            index, values = int(float(line.split()[0])), [float(v) for v in line.split()[1:]]
        except ValueError:
            problems.add(f"{entry.labels_file} {place}", "is not numbers", name)
            continue
        if len(values) < 4 or (len(values) > 4 and len(values) % 2) or 4 < len(values) < 6:
            what = f"has {len(values)} numbers behind the class; a box has 4, a polygon 6 or more"
            problems.add(f"{entry.labels_file} {place}", what, name)
            continue
        if not 0 <= index < len(class_names):
            what = f"class={index} is not from 0 to {len(class_names) - 1}"
            problems.add(f"{entry.labels_file} {place}", what, name)
            continue
        if len(values) == 4:
            x, y, w, h = values
            shares = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            xs, ys = values[::2], values[1::2]
            shares = (min(xs), min(ys), max(xs), max(ys))
        box = (shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height)
        entry.labels.append(Label(place, class_names[index], box))
