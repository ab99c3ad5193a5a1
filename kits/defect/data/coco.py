"""COCO: JSON with `images`, `annotations` and `categories`; a box is x y width height from 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.kit import Split
from kits.defect.data.config import CocoData
from kits.defect.data.labelled_folder import Entry, FolderImages, Label, images_below, root_of
from kits.defect.data.validate import Problems

# The end of a file's name without digits (instances_val2017) -> split.
SPLITS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def open_coco(cfg: CocoData) -> FolderImages:
    """Read every annotation file of a folder.

    Raises:
        ValueError: names everything that is wrong with it.
    """
    root = root_of(cfg)
    problems = Problems(cfg.path, cfg.leave_out)
    images: dict[str, list[Path]] = {}
    for path in images_below(root, cfg):
        images.setdefault(path.name, []).append(path)
    entries: list[Entry] = []
    class_names: list[str] = []
    for file in _files(root, cfg):
        reader = _File(file, root, images, problems)
        for name in reader.class_names:
            if name not in class_names:
                class_names.append(name)
        entries += reader.entries
    return FolderImages(cfg, entries, problems, class_names)


def _files(root: Path, cfg: CocoData) -> list[Path]:
    if cfg.annotations is not None:
        if not (root / cfg.annotations).is_file():
            raise ValueError(f"data.annotations={cfg.annotations!r} is not a file in data.path")
        return [root / cfg.annotations]
    found = sorted([*root.glob("*.json"), *root.glob("annotations/*.json")])
    if not found:
        raise ValueError(
            f"data.path={cfg.path!r} holds no .json, and annotations/ does not either; "
            "set data.annotations"
        )
    return found


class _File:
    """One annotation file."""

    def __init__(
        self, file: Path, root: Path, images: dict[str, list[Path]], problems: Problems
    ) -> None:
        self._file = file.relative_to(root).as_posix()
        self._root, self._images, self._problems = root, images, problems
        self.class_names: list[str] = []
        self.entries: list[Entry] = []
        try:
            content = json.loads(file.read_bytes())
            parts = [content[key] for key in ("images", "annotations", "categories")]
            if not all(isinstance(part, list) for part in parts):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            problems.add(self._file, "is not JSON with lists images, annotations, categories")
            return
        self._split = SPLITS.get(file.stem.rstrip("0123456789").replace("-", "_").split("_")[-1])
        self._read_all(*parts)

    def _read_all(self, images: list[Any], annotations: list[Any], categories: list[Any]) -> None:
        names: dict[Any, str] = {}
        for number, category in enumerate(categories, start=1):
            try:
                names[category["id"]] = str(category["name"])
            except (KeyError, TypeError):
                self._problems.add(f"{self._file} category {number}", "has no id or no name")
        self.class_names = [names[key] for key in sorted(names)]
        by_id: dict[Any, Entry] = {}
        for number, image in enumerate(images, start=1):
            try:
                name, key = str(image["file_name"]), image["id"]
            except (KeyError, TypeError):
                self._problems.add(f"{self._file} image {number}", "has no id or no file_name")
                continue
            if key in by_id:
                self._problems.add(f"{self._file} image {number}", f"id={key} is used twice")
                continue
            size = (image.get("width"), image.get("height"))
            entry = Entry(self._find(name), self._file, split=self._split)
            entry.stated_size = size if None not in size else None  # type: ignore[assignment]
            by_id[key] = entry
            self.entries.append(entry)
        for number, annotation in enumerate(annotations, start=1):
            self._read(f"annotation {number}", annotation, by_id, names)

    def _find(self, name: str) -> Path:
        """The image, named as it lies or by its last part alone."""
        if (self._root / name).is_file():
            return self._root / name
        found = self._images.get(Path(name).name, [])
        fitting = [path for path in found if path.as_posix().endswith(f"/{name}")] or found
        return fitting[0] if len(fitting) == 1 else self._root / name

    def _read(
        self, place: str, annotation: Any, images: dict[Any, Entry], names: dict[Any, str]
    ) -> None:
        where = f"{self._file} {place}"
        entry = images.get(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if entry is None:
            self._problems.add(where, "image_id is the id of no image")
            return
        image = self._root / entry.image
        name = image.relative_to(self._root).as_posix()
        if annotation.get("category_id") not in names:
            key = annotation.get("category_id")
            self._problems.add(where, f"category_id={key!r} is the id of no category", name)
            return
        if annotation.get("iscrowd"):
            self._problems.add(where, "is a crowd, which no single box stands for", name)
            return
        try:
            x, y, width, height = (float(value) for value in annotation["bbox"])
        except (KeyError, TypeError, ValueError):
            self._problems.add(where, "bbox is not four numbers x y width height", name)
            return
        box = (x, y, x + width, y + height)
        entry.labels.append(Label(place, names[annotation["category_id"]], box))
