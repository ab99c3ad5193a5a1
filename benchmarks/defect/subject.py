"""What is inspected: rendered parts of one product at 4K, a recipe learned from good ones of them,
and a detector. Made once and kept under build/defect.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serve.study import ROOT
from kits.defect.line.recipe import Recipe, read_recipe, write_recipe

BUILD = ROOT / "build" / "defect"
WIDTH, HEIGHT = 3840, 2160
PRODUCT = 3
NUM_GOOD, NUM_FRAMES = 20, 48
BAD_SHARE, MEAN_DEFECTS = 0.5, 2.0
REGION_PX = 640
# Sensors of 4K look at so much of a part where 0.2 mm are 3 pixels.
FOV_MM = 256.0


@dataclass(frozen=True)
class Subject:
    """Files of one product."""

    frames: Path  # (n, H, W) uint8
    recipe: Path
    detector: Path
    truth: list[list[list[float]]]  # of each frame, boxes in pixels
    is_trained: bool

    @property
    def num_frames(self) -> int:
        """Different ones."""
        return len(self.truth)


def subject(detector: Path | None, *, quick: bool = False) -> Subject:
    """The frames, the recipe and the detector, made if they are not there.

    Args:
        detector: an .ebundle or .onnx; None: the newest bundle of a run, or, where there is none,
            an untrained network of the kit's half width, which is as slow as a trained one.
        quick: few frames.
    """
    number = 8 if quick else NUM_FRAMES
    frames, truth = _frames(number)
    recipe = _recipe(8 if quick else NUM_GOOD)
    file, is_trained = choose_detector(detector)
    return Subject(frames, recipe, file, truth, is_trained)


def changed(recipe: Path, name: str, **changes: object) -> Path:
    """A recipe with other settings, as a file beside it."""
    path = recipe.with_name(f"{recipe.stem}-{name}.zip")
    write_recipe(dataclasses.replace(read_recipe(recipe), **changes), path)
    return path


def region(subject: Subject) -> tuple[Path, Path]:
    """Frames and recipe of the 640 px around where the template has most to see."""
    recipe = read_recipe(subject.recipe)
    template = recipe.arrays["template"].astype(np.float32)
    # Where registration has something to hold on to.
    steps = np.abs(np.diff(template, axis=1))[:, :-1:2]
    best = max(
        ((top, left) for top in range(0, HEIGHT - REGION_PX, 320)
         for left in range(0, WIDTH - REGION_PX, 320)),
        key=lambda at: float(steps[at[0] : at[0] + REGION_PX,
                                   at[1] // 2 : (at[1] + REGION_PX) // 2].mean()),
    )  # fmt: skip
    rows, columns = slice(best[0], best[0] + REGION_PX), slice(best[1], best[1] + REGION_PX)
    good, _ = _frames(NUM_GOOD, clean=True)
    learned = learn(np.load(good, mmap_mode="r")[:, rows, columns])
    path = BUILD / "region.zip"
    write_recipe(learned, path)
    frames = BUILD / "region.npy"
    np.save(frames, np.load(subject.frames, mmap_mode="r")[:, rows, columns])
    return frames, path


def learn(frames: np.ndarray) -> Recipe:
    """A recipe of these good frames."""
    from kits.defect.learning import LearnSettings, learn_recipe

    settings = LearnSettings("rendered", FOV_MM / WIDTH, 0.2)
    recipe = learn_recipe({f"good {at}": frame for at, frame in enumerate(frames)}, settings)
    # No rule: any defect makes a part NG, so that verdicts show what was found.
    return dataclasses.replace(recipe, rules=(), audit_share=0.0005)


def _recipe(number: int) -> Path:
    path = BUILD / f"recipe-{number}.zip"
    if not path.exists():
        good, _ = _frames(number, clean=True)
        print("  learning the recipe", file=sys.stderr, flush=True)
        write_recipe(learn(np.load(good)), path)
    return path


def _frames(number: int, *, clean: bool = False) -> tuple[Path, list[list[list[float]]]]:
    from kits.defect.data.config import RenderedData
    from kits.defect.data.render.rendered import RenderedImages
    from kits.defect.optics_config import OpticsConfig

    name = f"{'good' if clean else 'parts'}-{number}"
    path, told = BUILD / f"{name}.npy", BUILD / f"{name}.json"
    cfg = RenderedData(
        product=PRODUCT,
        width_px=WIDTH,
        height_px=HEIGHT,
        num_train=number,
        num_test=number,
        clean=1.0 if clean else 1 - BAD_SHARE,
        mean_defects=MEAN_DEFECTS,
        optics=OpticsConfig(fov_mm=FOV_MM),
    )
    images = RenderedImages(cfg)
    if told.exists() and (found := json.loads(told.read_text()))["made_of"] == images.fingerprint:
        return path, found["boxes"]
    BUILD.mkdir(parents=True, exist_ok=True)
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(number, HEIGHT, WIDTH))
    boxes = []
    for at, one in enumerate(images.names("train" if clean else "test")):
        print(f"\r  rendering {name}: {at + 1} of {number}", end="", file=sys.stderr, flush=True)
        image = images.load(one)
        made[at] = image.pixels
        boxes.append(image.boxes_px.tolist())
    print(file=sys.stderr)
    made.flush()
    told.write_text(json.dumps({"made_of": images.fingerprint, "boxes": boxes}))
    for recipe in BUILD.glob("recipe-*.zip"):
        recipe.unlink()
    return path, boxes


def choose_detector(given: Path | None) -> tuple[Path, bool]:
    if given is not None:
        return given, True
    found = sorted((ROOT / "runs" / "defect").glob("*/export/*.ebundle"))
    if found:
        return found[-1], True
    path = BUILD / "untrained.onnx"
    if not path.exists():
        _save_untrained(path)
    return path, False


def _save_untrained(path: Path) -> None:
    import torch

    from kits.defect.graph import OUTPUT_NAMES, Network, fused
    from kits.defect.model_config import HalfKitConfig

    torch.manual_seed(0)
    network = fused(Network(HalfKitConfig(), 1, 5).eval())
    names = list(OUTPUT_NAMES)
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 320, 320),),
        str(path),
        input_names=["image"],
        output_names=names,
        dynamic_axes={"image": {0: "n"}, **{name: {0: "n"} for name in names}},
        dynamo=False,
    )
