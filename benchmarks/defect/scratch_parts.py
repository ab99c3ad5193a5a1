"""Whole rendered 4K parts for `scratches.py`: clean ones and scratched ones of a few products, and
the recipe of each product. Made once and kept under build/defect/scratches (up to 8 GB).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defect.subject import BUILD, HEIGHT, WIDTH
from core.kit import Split
from kits.defect import learning
from kits.defect.data.config import RenderedData
from kits.defect.data.image_set import LabelledImage
from kits.defect.data.render.rendered import RenderedImages
from kits.defect.learning import LearnSettings, learn_recipe
from kits.defect.line.recipe import Recipe, read_recipe, write_recipe
from kits.defect.optics_config import OpticsConfig
from kits.defect.optics_plan import OpticsReport, check_optics, plan_for

FOLDER = BUILD / "scratches"
FOV_MM, WIDTH_MM, LENGTH_MM = 300.0, 0.2, 2.0
# Not that of any training: no random number of a training image comes again.
SEED = 1
MOST = 100_000


@dataclass(frozen=True)
class Kind:
    """Parts of one use."""

    split: Split
    first: int = 0  # number of the first one: no two kinds share a surface
    settings: dict[str, Any] = dataclasses.field(default_factory=lambda: {"clean": 1.0})


def _scratched(first: int, widths_mm: tuple[float, float]) -> Kind:
    settings = {"clean": 0.0, "defects": ("scratch",), "mean_defects": 12.0,
                "scratch_width_mm": widths_mm}  # fmt: skip
    return Kind("test", first, settings)


KINDS = {
    "good": Kind("train"),  # what the recipe is learned from
    "validation": Kind("validation"),  # what the threshold is chosen on
    "clean": Kind("test"),
    "scratched": _scratched(1000, (WIDTH_MM, WIDTH_MM)),
    "widths": _scratched(2000, (0.05, 0.3)),
}


class Parts:
    """All parts of one product."""

    def __init__(self, product: int) -> None:
        self.product = product
        self.surface = RenderedData().surfaces[product % len(RenderedData().surfaces)]

    def load(self, kind: str, at: int) -> LabelledImage:
        """Part number `at` of a kind, rendered if it is not there."""
        what = KINDS[kind]
        images = self._images(kind)
        folder = FOLDER / f"{kind}-{self.product}" / images.fingerprint[:16]
        file = folder / f"{at}.npz"
        name = f"{what.split}-{what.first + at:06d}"
        if file.exists():
            return _read(file, name)
        for other in folder.parent.glob("*") if folder.parent.exists() else ():
            if other.name != folder.name:
                shutil.rmtree(other)
        folder.mkdir(parents=True, exist_ok=True)
        image = images.load(name)
        _write(file, image)
        return image

    def recipe(self, number: int) -> Recipe:
        """Learned from so many good parts, as `kits.defect.learn` does, optics asked first.

        Raises:
            ValueError: the optics cannot show the smallest defect.
        """
        optics()
        settings = LearnSettings(f"product {self.product}", FOV_MM / WIDTH, WIDTH_MM)
        text = f"{self._images('good').fingerprint} {settings} {number}"
        made_of = hashlib.sha256(text.encode() + Path(learning.__file__).read_bytes()).hexdigest()
        path = FOLDER / f"recipe-{self.product}-{made_of[:16]}.zip"
        if not path.exists():
            frames = {}
            for at in range(number):
                tell(f"good parts of product {self.product}: {at + 1} of {number}")
                frames[f"good {at}"] = self.load("good", at).pixels
            tell(f"learning the recipe of product {self.product}", is_last=True)
            write_recipe(learn_recipe(frames, settings), path)
        return read_recipe(path)

    def _images(self, kind: str) -> RenderedImages:
        cfg = RenderedData(
            seed=SEED,
            product=self.product,
            width_px=WIDTH,
            height_px=HEIGHT,
            num_train=MOST,
            num_validation=MOST,
            num_test=MOST,
            scratch_length_mm=(LENGTH_MM, 20.0),
            optics=OpticsConfig(fov_mm=FOV_MM),
            **KINDS[kind].settings,
        )
        return RenderedImages(cfg)


def optics() -> OpticsReport:
    """What the set-up can see, by the plan that `kits.defect.learn` asks.

    Raises:
        ValueError: too little for the scratches that are looked for.
    """
    return check_optics(
        plan_for(
            mm_per_px=FOV_MM / WIDTH,
            width_px=WIDTH,
            height_px=HEIGHT,
            defect_mm=WIDTH_MM,
            length_mm=LENGTH_MM,
        )
    )


def tell(text: str, *, is_last: bool = False) -> None:
    """A line of progress that the next one takes the place of."""
    print(f"\r  {text:<72}", end="\n" if is_last else "", file=sys.stderr, flush=True)


def _write(file: Path, image: LabelledImage) -> None:
    every = {entry.name: getattr(image, entry.name) for entry in fields(image)}
    arrays: dict[str, Any] = {k: one for k, one in every.items() if isinstance(one, np.ndarray)}
    # Several processes may render at once.
    part = file.with_suffix(f".{os.getpid()}.npz")
    np.savez(part, **arrays)
    part.replace(file)


def _read(file: Path, name: str) -> LabelledImage:
    with np.load(file, allow_pickle=False) as arrays:
        return LabelledImage(name, mm_per_px=FOV_MM / WIDTH, **arrays)
