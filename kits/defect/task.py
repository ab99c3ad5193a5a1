"""The defect kit's network as a task for the trainer.

Dimensions: N batch, P planes, S side of a sample, G true boxes of a sample at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from core.kit import Split, Step
from core.train.batches import Batches
from kits.defect.augment import Sample, training_sample
from kits.defect.data.image_set import ImageSet, LabelledImage
from kits.defect.data.tiles import TiledImages, draw_epoch
from kits.defect.detecting import Detecting, detect
from kits.defect.graph import build_network
from kits.defect.losses import losses
from kits.defect.metrics.average_precision import best_threshold, hits_of, map_metrics
from kits.defect.metrics.matching import Scored
from kits.defect.network import ArrayNetwork
from kits.defect.planes import num_planes, planes_of

if TYPE_CHECKING:
    from kits.defect.config import DefectTrainConfig

Batch = dict[str, Tensor]
NONE = -1  # the class of no box
PARTS_OF_MOSAIC = 4


class DefectTask:
    """A detector on crops of images.

    Args:
        images: where images come from; those of the training and validation splits are read now.
        cfg: the whole configuration.
    """

    def __init__(self, images: ImageSet, cfg: DefectTrainConfig) -> None:
        self.cfg, self.seed = cfg, cfg.trainer.seed
        self.class_names = tuple(images.class_names)
        # Training sees tiles; validation whole images, as evaluation does.
        self.images: dict[Split, list[LabelledImage]] = {
            "train": read(TiledImages(images, cfg.tiling), "train"),
            "validation": read(images, "validation", cfg.sampling.max_validation),
        }
        first = self.images["train"][0]
        self.planes = num_planes(first.pixels, has_template=images.has_template)
        torch.manual_seed(self.seed)
        self.network = build_network(cfg.model, self.planes, len(self.class_names))
        self.model: nn.Module = self.network
        if cfg.sampling.size_px % self.network.multiple:
            raise ValueError(
                f"sampling.size_px={cfg.sampling.size_px} is not a multiple of "
                f"{self.network.multiple}, as {cfg.model.graph} needs; set sampling.size_px"
            )

    def batches(self, split: Split) -> Batches[Batch]:
        """Batches of training samples, drawn anew in each epoch."""
        if split != "train":
            raise ValueError(f"split={split!r} is scored on whole images; call evaluate")
        size = self.cfg.sampling.batch_size
        number = self.cfg.sampling.samples_per_epoch or max(size, len(self.images["train"]))
        orders: dict[int, np.ndarray] = {}

        def collated(indices: np.ndarray) -> Batch:
            epoch = batches.epoch
            if epoch not in orders:
                orders.clear()
                orders[epoch] = self._order(number, epoch)
            return self._draw(indices, epoch, orders[epoch])

        batches = Batches(number, size, collated, seed=self.seed, shuffle=True, drop_last=True)
        return batches

    def step(self, batch: Batch) -> Step:
        """Loss of one batch; its parts are logged."""
        image = batch["image"].to(memory_format=torch.channels_last).float() / 255
        output = self.model(image)
        # Small differences of boxes: half precision would lose them.
        with torch.autocast(image.device.type, enabled=False):
            total, parts = losses(self.network, output, batch, self.cfg.loss)
        return Step(total, {name: float(value.detach()) for name, value in parts.items()})

    def evaluate(self, split: Split) -> dict[str, float]:
        """Scores of whole images: mAP, and the F score at IoU 0.33 with its best threshold."""
        network, settings = self.arrays(), Detecting(self.network.multiple)
        hits = [
            hits_of(
                Scored(image, detect(planes_of(image.pixels, image.template), network, settings))
            )
            for image in self.images[split]
        ]
        threshold, f_score = best_threshold(hits)
        return {**map_metrics(hits), "f_at_iou_0.33": f_score, "threshold": threshold}

    def arrays(self) -> ArrayNetwork:
        """The model as it is now, for arrays."""
        return ArrayNetwork(self.model, is_bf16=self.cfg.trainer.precision == "bf16")

    def example(self) -> Batch:
        """One plain image, in 0..1."""
        rng = np.random.default_rng(self.seed)
        first = self.images["train"][:1]
        sample = training_sample(first, self.cfg.sampling, self.cfg.tiling, rng)
        return {"image": torch.from_numpy(sample.planes[None].astype(np.float32) / 255)}

    def _order(self, number: int, epoch: int) -> np.ndarray:
        """Which tiles an epoch sees."""
        seed = int(np.random.default_rng((self.seed, epoch)).integers(2**31))
        classes = [image.classes for image in self.images["train"]]
        return draw_epoch(classes, len(self.class_names), self.cfg.tiling, seed, count=number)

    def _draw(self, indices: np.ndarray, epoch: int, order: np.ndarray) -> Batch:
        return collate([self._sample(int(index), epoch, order) for index in indices])

    def _sample(self, index: int, epoch: int, order: np.ndarray) -> Sample:
        rng = np.random.default_rng((self.seed, epoch, index))
        chosen = [order[index]]
        if rng.random() < self.cfg.sampling.mosaic:
            chosen += rng.choice(order, PARTS_OF_MOSAIC - 1).tolist()
        images = [self.images["train"][k] for k in chosen]
        return training_sample(images, self.cfg.sampling, self.cfg.tiling, rng)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as one batch; rows without a box have class -1."""
    most = max(1, *(len(sample.classes) for sample in samples))
    boxes = np.zeros((len(samples), most, 4), np.float32)
    classes = np.full((len(samples), most), NONE, np.int64)
    for row, sample in enumerate(samples):
        boxes[row, : len(sample.boxes)] = sample.boxes
        classes[row, : len(sample.classes)] = sample.classes
    image = np.stack([sample.planes for sample in samples])
    return {
        "image": torch.from_numpy(image),
        "boxes": torch.from_numpy(boxes),
        "classes": torch.from_numpy(classes),
    }


def read(images: ImageSet, split: Split, most: int | None = None) -> list[LabelledImage]:
    """The images of a split, or so many spread evenly over it.

    Raises:
        ValueError: the split is empty, or its images have no defects to learn.
    """
    names = images.names(split)
    if most is not None and len(names) > most:
        names = [names[k] for k in np.linspace(0, len(names) - 1, most).astype(int)]
    found = [images.load(name) for name in names]
    if not any(len(image.classes) for image in found):
        raise ValueError(
            f"the {split} split of data={images.name} has no defect; add images, or change folds"
        )
    return found


def build_task(cfg: DefectTrainConfig) -> DefectTask:
    """The task of a configuration; with `trainer.smoke` of a few small images."""
    from kits.defect.data.load import open_images
    from kits.defect.smoke import shrink

    cfg = shrink(cfg)
    return DefectTask(open_images(cfg.data), cfg)
