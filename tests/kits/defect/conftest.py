"""A tiny image set that anybody can learn: bright and dark rectangles on grey."""

import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from kits.defect.data.image_set import LabelledImage


def draw(name, seed, side, has_template, most=3):
    """Rectangles of two classes, bright and dark, that do not touch."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(110, 140, (side, side)).astype(np.uint8)
    template = pixels.copy() if has_template else None
    cells = rng.permutation((side // 32) ** 2)[: rng.integers(0, most + 1)]
    boxes, classes = [], rng.integers(0, 2, len(cells))
    for cell, kind in zip(cells, classes, strict=True):
        top, left = np.array(divmod(int(cell), side // 32)) * 32 + rng.integers(2, 8, 2)
        height, width = rng.integers(10, 22, 2)
        pixels[top : top + height, left : left + width] = (230, 20)[kind]
        boxes.append([left, top, left + width, top + height])
    return LabelledImage(
        name, pixels, np.array(boxes, np.float32).reshape(-1, 4), classes.astype(np.int64), template
    )


@dataclass
class Rectangles:
    """Fills `ImageSet`."""

    side: int = 96
    has_template: bool = False
    sizes: dict[str, int] = field(default_factory=lambda: {"train": 8, "validation": 4, "test": 4})
    name: str = "rectangles"
    class_names: tuple[str, ...] = ("bright", "dark")
    fingerprint: str = "0" * 64

    def names(self, split):
        return [f"{split}-{k}" for k in range(self.sizes[split])]

    def load(self, name):
        split, number = name.split("-")
        seed = 1000 * list(self.sizes).index(split) + int(number)
        return draw(name, seed, self.side, self.has_template)


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose more by waiting for a second thread than it computes."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def rectangles():
    """The class, to be made in other sizes too."""
    return Rectangles


@pytest.fixture(scope="session")
def train_config():
    """A small configuration of training, for `dataclasses.replace`."""
    from core.train.config import OptimConfig, TrainerConfig
    from kits.defect.config import DefectTrainConfig
    from kits.defect.model_config import QuarterKitConfig
    from kits.defect.sampling_config import SamplingConfig

    def make(**changes):
        cfg = DefectTrainConfig(
            model=QuarterKitConfig(),
            sampling=SamplingConfig(size_px=96, batch_size=4, noise=0.0),
            trainer=TrainerConfig(
                metric="map50", metric_mode="max", tensorboard=False, progress=False
            ),
            optim=OptimConfig(lr=3e-3),
        )
        for name, value in changes.items():
            setattr(cfg, name, value)
        return cfg

    return make


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """A finished run of the smallest network on rendered parts."""
    import torch

    from core.train.config import OptimConfig, TrainerConfig
    from kits.defect.config import DefectTrainConfig
    from kits.defect.model_config import QuarterKitConfig
    from kits.defect.training import train_run

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    return train_run(
        DefectTrainConfig(
            trainer=TrainerConfig(
                smoke=True, max_steps=6, metric="map50", metric_mode="max", tensorboard=False,
                progress=False, num_threads=1, runs_dir=str(folder),
            ),
            optim=OptimConfig(lr=3e-3),
            model=QuarterKitConfig(),
        )
    )  # fmt: skip
