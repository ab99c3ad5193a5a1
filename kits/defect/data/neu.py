"""NEU-DET: hot-rolled steel strip, 200x200 pixels, six kinds of defects that fill much of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.kit import Split
from kits.defect.data.config import NeuData
from kits.defect.data.image_set import LabelledImage
from kits.defect.data.packed import PackedFiles
from kits.defect.data.pictures import read_pixels, size_of
from kits.defect.data.split import neu_split
from kits.defect.data.validate import Problems

CLASSES = (
    *("crazing", "inclusion", "patches"),
    *("pitted_surface", "rolled-in_scale", "scratches"),
)
PUBLISHED = {"neu-det-dev.zip": "1b6376a049879c7ea42eb93546c1a24b5fdf329d01cd3ac2943b3e0b45e99d78"}


class NeuImages:
    """Fills `ImageSet`; `images/` and `boxes.csv`, packed or not."""

    name = "neu"
    class_names = CLASSES
    has_template = False

    def __init__(self, cfg: NeuData) -> None:
        self.cfg = cfg
        self._files = PackedFiles(cfg, PUBLISHED)
        self.fingerprint = self._files.fingerprint
        problems = Problems(cfg.path, cfg.leave_out)
        sizes = {}
        for name in self._files.names("images"):
            try:
                sizes[name] = size_of(self._files.contents[f"images/{name}"])
            except ValueError as error:
                problems.add(f"images/{name}", str(error), name)
            if not _number(name).isdigit():
                problems.add(f"images/{name}", "is not <class>_<number>", name)
        self._boxes = self._files.boxes(CLASSES, sizes, 1, problems)
        problems.refuse()
        for name in cfg.leave_out:
            self._boxes.pop(name, None)

    def names(self, split: Split) -> list[str]:
        """Images of the split's numbers, sorted."""
        return sorted(name for name in self._boxes if neu_split(int(_number(name))) == split)

    def load(self, name: str) -> LabelledImage:
        """One image in grey; the files repeat it in three colours."""
        boxes, classes = self._boxes[name]
        pixels = read_pixels(self._files.contents[f"images/{name}"])
        if pixels.ndim == 3:
            pixels = np.ascontiguousarray(pixels[..., 1])
        return LabelledImage(name, pixels, boxes, classes, mm_per_px=self.cfg.mm_per_px)


def _number(name: str) -> str:
    return Path(name).stem.rpartition("_")[2]
