"""The medical kit's network as a task for the trainer.

Dimensions: N batch, D, H, W voxels of a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from core.kit import Split, Step
from core.train.batches import Batches
from kits.medical.augment import Sample, plain_sample, training_sample
from kits.medical.data.case import Cases
from kits.medical.losses import losses
from kits.medical.model import build_network
from kits.medical.network import Network
from kits.medical.sampling import KINDS, Crop, Kind, crops_of
from kits.medical.sampling_config import LEAST_DEEPEST
from kits.medical.validation import Scores

if TYPE_CHECKING:
    from kits.medical.config import MedicalTrainConfig

Batch = dict[str, Tensor]


class MedicalTask:
    """A U-Net on crops of cases.

    Args:
        cases: where scans come from; crops of the training and validation splits are cut now.
        cfg: the whole configuration.
    """

    def __init__(self, cases: Cases, cfg: MedicalTrainConfig) -> None:
        check_patch(cfg)
        self.cfg, self.seed = cfg, cfg.trainer.seed
        self.crops: dict[Split, list[Crop]] = {
            "train": cut_crops(cases, "train", cfg),
            "validation": spread(cut_crops(cases, "validation", cfg), cfg.sampling.max_validation),
        }
        self._places = _by_kind(self.crops["train"])
        self._shares = _shares(self._places, cfg)
        torch.manual_seed(self.seed)
        self.model: nn.Module = build_network(cfg.model)

    def batches(self, split: Split) -> Batches[Batch]:
        """Batches of a split; training samples are drawn anew in each epoch."""
        size = self.cfg.sampling.batch_size
        if split == "train":
            number = max(self.cfg.sampling.samples_per_epoch, size)
            batches = Batches(
                number, size, lambda index: self._draw(index, batches.epoch), seed=self.seed,
                shuffle=True, drop_last=True,
            )  # fmt: skip
            return batches
        crops = self._crops_of(split)
        return Batches(
            len(crops), size, lambda index: self._plain([crops[k] for k in index]), seed=self.seed,
            shuffle=False,
        )  # fmt: skip

    def step(self, batch: Batch) -> Step:
        """Loss of one batch; its parts are logged."""
        total, parts = losses(self.model(batch["image"]), batch, self.cfg.loss)
        return Step(total, {name: float(value.detach()) for name, value in parts.items()})

    def evaluate(self, split: Split) -> dict[str, float]:
        """Loss, Dice with the votes, average precision of peaks, accuracy of textures."""
        network, crops = self.network(), self._crops_of(split)
        scores, size = Scores(self.cfg.sampling), self.cfg.sampling.batch_size
        total = 0.0
        for start in range(0, len(crops), size):
            part = crops[start : start + size]
            samples = [plain_sample(crop, self.cfg.sampling) for crop in part]
            batch = collate(samples)
            outputs = network({"image": batch["image"].numpy()})
            tensors = {name: torch.from_numpy(value) for name, value in outputs.items()}
            loss, _ = losses(tensors, batch, self.cfg.loss)
            total += float(loss) * len(part)
            scores.add(part, samples, outputs)
        return {"loss": total / len(crops), **scores.metrics()}

    def network(self) -> Network:
        """The model as it is now, for arrays."""
        return Network(self.model, is_bf16=self.cfg.trainer.precision == "bf16")

    def example(self) -> Batch:
        """One plain sample."""
        crops = self.crops["validation"] or self.crops["train"]
        return {"image": self._plain(crops[:1])["image"]}

    def _crops_of(self, split: Split) -> list[Crop]:
        if split not in self.crops:
            raise ValueError(f"split={split!r} is scored on whole scans; see kits.medical.evaluate")
        return self.crops[split]

    def _draw(self, indices: np.ndarray, epoch: int) -> Batch:
        samples = []
        for index in indices:
            rng = np.random.default_rng((self.seed, epoch, int(index)))
            kind = KINDS[rng.choice(len(KINDS), p=self._shares)]
            places = self._places[kind]
            crop = self.crops["train"][places[rng.integers(len(places))]]
            samples.append(training_sample(crop, self.cfg.sampling, rng))
        return collate(samples)

    def _plain(self, crops: Sequence[Crop]) -> Batch:
        return collate([plain_sample(crop, self.cfg.sampling) for crop in crops])


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as one batch of tensors, with an axis for channels."""
    names = ("image", "votes", "weight", "heat", "heat_weight")
    batch = {
        name: torch.from_numpy(np.stack([getattr(sample, name) for sample in samples])[:, None])
        for name in names
    }
    texture = np.stack([sample.texture for sample in samples]).astype(np.int64)
    return {**batch, "texture": torch.from_numpy(texture)}


def cut_crops(cases: Cases, split: Split, cfg: MedicalTrainConfig) -> list[Crop]:
    """Crops of all cases of a split.

    Raises:
        ValueError: a case has no nodule and no lung to cut from, so that there is nothing at all.
    """
    crops: list[Crop] = []
    for number, name in enumerate(cases.names(split)):
        rng = np.random.default_rng((cfg.trainer.seed, number, len(split)))
        crops += crops_of(cases.load(name), cfg.sampling, cases.max_readers, rng)
    if not any(crop.nodule for crop in crops):
        raise ValueError(
            f"the {split} split of data={cases.name} has no nodule; add cases, or change the folds"
        )
    return crops


def check_patch(cfg: MedicalTrainConfig) -> None:
    """Refuse samples that the network cannot halve often enough.

    Raises:
        ValueError: a size of the patch is no multiple of the network's, or too small a one.
    """
    patch, reductions = cfg.sampling.patch, cfg.model.reductions
    levels = len(cfg.model.widths)
    if any(size % multiple for size, multiple in zip(patch, reductions, strict=True)):
        raise ValueError(
            f"sampling.patch={patch} has sizes that are no multiples of {_sizes(reductions)}, as "
            f"{levels} levels need; set sampling.patch"
        )
    least = [LEAST_DEEPEST * multiple for multiple in reductions]
    if any(size < wanted for size, wanted in zip(patch, least, strict=True)):
        raise ValueError(
            f"sampling.patch={patch} leaves fewer than {LEAST_DEEPEST} voxels in the deepest of "
            f"{levels} levels; give {_sizes(least)} or more"
        )


def _sizes(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else ", ".join(map(str, sizes))


def build_task(cfg: MedicalTrainConfig) -> MedicalTask:
    """The task of a configuration; with `trainer.smoke` of a few small cases."""
    from kits.medical.data.load import open_cases
    from kits.medical.smoke import shrink

    cfg = shrink(cfg)
    return MedicalTask(open_cases(cfg.data), cfg)


def _by_kind(crops: Iterable[Crop]) -> dict[Kind, list[int]]:
    places: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    for number, crop in enumerate(crops):
        places[crop.kind].append(number)
    return places


def _shares(places: Mapping[Kind, Sequence[int]], cfg: MedicalTrainConfig) -> np.ndarray:
    """How often each kind is drawn, without those that the data do not have."""
    given = cfg.sampling
    wanted = [given.fine_nodules, given.fine_lungs, given.coarse_nodules]
    shares = np.array([*wanted, max(0.0, 1 - sum(wanted))])
    shares[[not places[kind] for kind in KINDS]] = 0
    if not shares.sum():
        raise ValueError("all shares of samples that the data have are 0; set sampling")
    result: np.ndarray = shares / shares.sum()
    return result


def spread(crops: list[Crop], most: int) -> list[Crop]:
    """At most so many, spread evenly."""
    if len(crops) <= most:
        return crops
    return [crops[k] for k in np.linspace(0, len(crops) - 1, most).astype(int)]
