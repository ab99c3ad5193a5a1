"""A user's own images, whichever form their labels have: checked, split, loaded.

The readers of the forms (coco.py, voc.py, yolo.py, labelme.py) give entries; the rest is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.kit import Split
from kits.defect.data import split as splits
from kits.defect.data.config import OwnData
from kits.defect.data.image_set import LabelledImage
from kits.defect.data.pictures import SUFFIXES, read_pixels, size_of
from kits.defect.data.validate import Box, Problems, box_problem, inside

Segment = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Label:
    """One box as a file names it."""

    place: str  # within the labels' file: "object 2", "line 7"
    class_name: str
    box: Box
    segment: Segment | None = None  # ends of a line
    length_px: float | None = None  # along that line


@dataclass
class Entry:
    """One image with its labels."""

    image: Path
    labels_file: str  # as a problem names it
    labels: list[Label] = field(default_factory=list)
    stated_size: tuple[int, int] | None = None  # width, height
    split: Split | None = None


def root_of(cfg: OwnData) -> Path:
    """The folder of a source.

    Raises:
        ValueError: it is none.
    """
    root = Path(cfg.path).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f"data.path={cfg.path!r} is not a folder; set data.path")
    return root


def images_below(root: Path, cfg: OwnData) -> list[Path]:
    """Every image in a folder, templates aside, sorted."""
    templates = root / cfg.templates if cfg.templates else None
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and (templates is None or templates not in path.parents)
    )


class FolderImages:
    """Fills `ImageSet` from entries."""

    def __init__(
        self,
        cfg: OwnData,
        entries: Sequence[Entry],
        problems: Problems,
        class_names: Sequence[str] | None,
    ) -> None:
        """Check everything and refuse the source if anything is wrong.

        Args:
            cfg: the source's settings.
            entries: its images.
            problems: what the reader found already.
            class_names: in order, where the source states them.
        """
        self.name = cfg.name
        self.cfg = cfg
        self.root = root_of(cfg)
        self.has_template = cfg.templates is not None
        given = cfg.class_names or class_names
        named = sorted({label.class_name for entry in entries for label in entry.labels})
        self.class_names = tuple(given if given is not None else named)
        self._problems = problems
        self._sizes: dict[str, tuple[int, int]] = {}
        self._entries: dict[str, Entry] = {}
        digest = hashlib.sha256(repr(self.class_names).encode())
        for entry in entries:
            name = entry.image.relative_to(self.root).as_posix()
            if name in cfg.leave_out:
                continue
            if name in self._entries:
                problems.add(entry.labels_file, f"image={name} is labelled twice", name)
            self._entries[name] = entry
            content = self._check(name, entry)
            digest.update(f"{name} {entry.labels}".encode() + hashlib.sha256(content).digest())
        if not entries:
            problems.add(str(self.root), f"no image with labels of data={cfg.name} was found")
        self._check_left_out({entry.image.relative_to(self.root).as_posix() for entry in entries})
        problems.refuse()
        self.fingerprint = digest.hexdigest()
        stated = {name: entry.split for name, entry in self._entries.items()}
        self._splits = splits.complete(stated, cfg)

    def names(self, split: Split) -> list[str]:
        """Images of a split, sorted."""
        return sorted(name for name, each in self._splits.items() if each == split)

    def load(self, name: str) -> LabelledImage:
        """One image with its boxes."""
        entry = self._entries[name]
        pixels = read_pixels(entry.image.read_bytes())
        height, width = pixels.shape[:2]
        labels = entry.labels
        boxes = [inside(label.box, width, height) for label in labels]
        mm_per_px, lengths, segments = self.cfg.mm_per_px, None, None
        if any(label.segment for label in labels):
            nowhere = ((np.nan, np.nan), (np.nan, np.nan))
            segments = np.array([label.segment or nowhere for label in labels], np.float32)
            if mm_per_px is not None:
                lengths_px = np.array([label.length_px or np.nan for label in labels], np.float32)
                lengths = (lengths_px * mm_per_px).astype(np.float32)
        return LabelledImage(
            name,
            pixels,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array([self.class_names.index(label.class_name) for label in labels], np.int64),
            template=self._template(name, pixels.shape) if self.has_template else None,
            mm_per_px=mm_per_px,
            lengths_mm=lengths,
            segments_px=segments,
        )

    def _template(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        template = read_pixels(self._template_path(name).read_bytes())
        if template.ndim < len(shape):
            return np.repeat(template[..., None], shape[-1], -1)
        return template if template.ndim == len(shape) else template[..., 0]

    def _template_path(self, name: str) -> Path:
        folder = self.root / (self.cfg.templates or "")
        nested = folder / name
        return nested if nested.is_file() else folder / Path(name).name

    def _check(self, name: str, entry: Entry) -> bytes:
        try:
            content = entry.image.read_bytes()
            size = self._size(content)
        except FileNotFoundError:
            self._problems.add(entry.labels_file, f"image={name} is not there", name)
            return b""
        except (ValueError, OSError) as error:
            self._problems.add(name, str(error), name)
            return b""
        if entry.stated_size is not None and entry.stated_size != size:
            stated, real = ("x".join(map(str, each)) for each in (entry.stated_size, size))
            what = f"says that {name} is {stated}, it is {real}"
            self._problems.add(entry.labels_file, what, name)
        self._check_labels(name, entry, size)
        if self.has_template:
            content += self._check_template(name, size)
        return content

    def _size(self, content: bytes) -> tuple[int, int]:
        if not self.cfg.check_pixels:
            return size_of(content)
        height, width = read_pixels(content).shape[:2]
        return width, height

    def _check_labels(self, name: str, entry: Entry, size: tuple[int, int]) -> None:
        seen: dict[tuple[str, Box], str] = {}
        for label in entry.labels:
            what = box_problem(label.box, *size)
            if label.class_name not in self.class_names:
                legal = ", ".join(self.class_names)
                what = f"class={label.class_name!r} is not one of {legal}"
            if what is None and (label.class_name, label.box) in seen:
                what = f"is the same box as {seen[label.class_name, label.box]}"
            seen.setdefault((label.class_name, label.box), label.place)
            if what is not None:
                self._problems.add(f"{entry.labels_file} {label.place}", what, name)

    def _check_template(self, name: str, size: tuple[int, int]) -> bytes:
        path = self._template_path(name)
        if not path.is_file():
            self._problems.add(name, f"has no template {path.relative_to(self.root)}", name)
            return b""
        content = path.read_bytes()
        try:
            found = self._size(content)
        except ValueError as error:
            self._problems.add(str(path.relative_to(self.root)), str(error), name)
            return b""
        if found != size:
            what = f"is {found[0]}x{found[1]}, its image {size[0]}x{size[1]}"
            self._problems.add(str(path.relative_to(self.root)), what, name)
        return content

    def _check_left_out(self, names: set[str]) -> None:
        for name in self.cfg.leave_out:
            if name not in names:
                self._problems.add("data.leave_out", f"{name} is no image of this source")
