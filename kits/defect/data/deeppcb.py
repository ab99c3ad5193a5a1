"""DeepPCB: binarised printed-circuit boards, each with its template, and six kinds of defects.

The splits are by board: the published one is by crop, so that it tests on boards it trained on.
"""

from __future__ import annotations

from core.kit import Split
from kits.defect.data.config import DeepPcbData
from kits.defect.data.image_set import LabelledImage
from kits.defect.data.packed import PackedFiles
from kits.defect.data.pictures import read_pixels, size_of
from kits.defect.data.validate import Problems

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
PUBLISHED = {
    "deeppcb-trainval.zip": "f4b7cee5df8bcd28db04699cdeac494d6a9f385aaf3f87608ddeda94f71528ff"
}


class DeepPcbImages:
    """Fills `ImageSet`; `tested/`, `template/` and `boxes.csv`, packed or not."""

    name = "deeppcb"
    class_names = CLASSES
    has_template = True

    def __init__(self, cfg: DeepPcbData) -> None:
        self.cfg = cfg
        self._files = PackedFiles(cfg, PUBLISHED)
        self.fingerprint = self._files.fingerprint
        problems = Problems(cfg.path, cfg.leave_out)
        sizes = {}
        for name in self._files.names("tested"):
            try:
                sizes[name] = size_of(self._files.contents[f"tested/{name}"])
                other = size_of(self._files.contents[f"template/{name}"])
            except KeyError:
                problems.add(f"tested/{name}", "has no template", name)
                continue
            except ValueError as error:
                problems.add(f"tested/{name} or its template", str(error), name)
                continue
            if sizes[name] != other:
                problems.add(f"template/{name}", f"size={other} is not {sizes[name]}", name)
        # Their boxes are corners that count from 0.
        self._boxes = self._files.boxes(CLASSES, sizes, 0, problems)
        problems.refuse()
        for name in cfg.leave_out:
            self._boxes.pop(name, None)

    def names(self, split: Split) -> list[str]:
        """Images of the split's boards, sorted."""
        return sorted(name for name in self._boxes if self._split(name) == split)

    def load(self, name: str) -> LabelledImage:
        """One image with its template."""
        boxes, classes = self._boxes[name]
        pixels, template = (
            read_pixels(self._files.contents[f"{folder}/{name}"])
            for folder in ("tested", "template")
        )
        return LabelledImage(name, pixels, boxes, classes, template, self.cfg.mm_per_px)

    def _split(self, name: str) -> Split:
        board = name[:5]
        if board in self.cfg.train_boards:
            return "train"
        return "validation" if board in self.cfg.validation_boards else "test"
