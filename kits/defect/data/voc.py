"""PASCAL VOC: an XML file for each image; pixels count from 1 and the last one is included."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from core.kit import Split
from kits.defect.data.config import VocData
from kits.defect.data.labelled_folder import Entry, FolderImages, Label, images_below, root_of
from kits.defect.data.validate import Problems

SPLITS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}


def open_voc(cfg: VocData) -> FolderImages:
    """Read every XML file of a folder.

    Raises:
        ValueError: names everything that is wrong with it.
    """
    root = root_of(cfg)
    problems = Problems(cfg.path, cfg.leave_out)
    images: dict[str, list[Path]] = {}
    for path in images_below(root, cfg):
        images.setdefault(path.stem, []).append(path)
    splits = _stated_splits(root)
    entries = []
    for file in sorted(root.rglob("*.xml")):
        entry = _read(file, root, images, cfg, problems)
        if entry is not None:
            entry.split = splits.get(entry.image.stem)
            entries.append(entry)
    labelled = {entry.image for entry in entries}
    for path in sorted(path for paths in images.values() for path in paths):
        if path not in labelled:
            name = path.relative_to(root).as_posix()
            problems.add(name, "has no XML file; a clean part has one without objects", name)
            entries.append(Entry(path, name))
    return FolderImages(cfg, entries, problems, None)


def _stated_splits(root: Path) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for file, split in SPLITS.items():
        path = root / "ImageSets" / "Main" / f"{file}.txt"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found |= {line.split()[0]: split for line in lines if line.strip()}
    return found


def _read(
    file: Path, root: Path, images: dict[str, list[Path]], cfg: VocData, problems: Problems
) -> Entry | None:
    labels_file = file.relative_to(root).as_posix()
    found = images.get(file.stem, [])
    if len(found) != 1:
        paths = ", ".join(path.relative_to(root).as_posix() for path in found) or "none"
        problems.add(labels_file, f"images named {file.stem} are {paths}; it needs one")
        return None
    image = found[0]
    name = image.relative_to(root).as_posix()
    entry = Entry(image, labels_file)
    try:
        tree = ElementTree.fromstring(file.read_bytes())
    except ElementTree.ParseError as error:
        problems.add(labels_file, f"is no XML: {error}", name)
        return entry
    size = [tree.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    if all(text.isdigit() for text in size):
        entry.stated_size = (int(size[0]), int(size[1]))
    for number, item in enumerate(tree.iter("object"), start=1):
        place = f"object {number}"
        class_name = item.findtext("name", "").strip()
        try:
            corners = [
                float(item.findtext(f"bndbox/{corner}", ""))
                for corner in ("xmin", "ymin", "xmax", "ymax")
            ]
        except ValueError:
            problems.add(f"{labels_file} {place}", "bndbox is not four numbers", name)
            continue
        if not class_name:
            problems.add(f"{labels_file} {place}", "has no name", name)
            continue
        x1, y1 = corners[0] - cfg.first_pixel, corners[1] - cfg.first_pixel
        entry.labels.append(Label(place, class_name, (x1, y1, corners[2], corners[3])))
    return entry
