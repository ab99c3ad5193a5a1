"""What a network is worth on crops: to choose a checkpoint, a threshold, layers for 8 bits.

They are no results: those come from whole scans, or from each reader against the others. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from kits.medical.augment import STRIDE, Sample, plain_sample
from kits.medical.sampling import Crop
from kits.medical.sampling_config import SamplingConfig

Network = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

THRESHOLDS = np.arange(0.1, 0.76, 0.05).round(2)  # probabilities tried for masks
BATCH = 8
MAX_PEAKS = 8  # of one crop's heat-map
LEAST_RADIUS_MM = 2.0  # a cell of the coarse scale is wider than the smallest nodules


def crop_metrics(network: Network, crops: Sequence[Crop], cfg: SamplingConfig) -> dict[str, float]:
    """What a network says about the middle of crops; see `Scores.metrics`."""
    scores = Scores(cfg)
    for start in range(0, len(crops), BATCH):
        part = crops[start : start + BATCH]
        samples = [plain_sample(crop, cfg) for crop in part]
        image = np.stack([sample.image for sample in samples])[:, None]
        scores.add(part, samples, network({"image": image}))
    return scores.metrics()


class Scores:
    """What was seen so far of a network's answers to plain samples."""

    def __init__(self, cfg: SamplingConfig) -> None:
        self.cfg = cfg
        self.dice: list[np.ndarray] = []
        self.scores: list[float] = []
        self.is_hit: list[bool] = []
        self.num_centres = 0
        self.textures: list[bool] = []

    def add(
        self, crops: Sequence[Crop], samples: Sequence[Sample], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Score a batch of answers."""
        for k, (crop, sample) in enumerate(zip(crops, samples, strict=True)):
            if crop.kind == "fine_nodules":
                self.dice.append(_dices(outputs["mask"][k, 0], sample.votes, sample.weight))
            if not crop.is_patch:
                self.add_peaks(crop, outputs["heat"][k, 0])
            self.add_textures(outputs["texture"][k], sample.texture, sample.heat)

    def add_peaks(self, crop: Crop, heat: np.ndarray) -> None:
        """Peaks of a heat-map as hits and false alarms; each nodule is hit once."""
        start = (np.array(crop.image.shape) - self.cfg.patch) // 2
        centres = crop.centres - start
        inside = np.all((centres >= 0) & (centres <= np.array(self.cfg.patch) - 1), axis=1)
        left = list(np.flatnonzero(inside & crop.is_certain))
        self.num_centres += len(left)
        is_top = heat == ndimage.maximum_filter(heat, 3, mode="nearest")
        cells = np.argwhere(is_top)
        order = np.argsort(-heat[is_top], kind="stable")[:MAX_PEAKS]
        taken: list[int] = []
        for cell in cells[order]:
            place = (cell + 0.5) * STRIDE - 0.5
            distance = np.linalg.norm((centres - place) * crop.spacing_mm, axis=1)
            near = distance < np.maximum(crop.diameters_mm / 2, LEAST_RADIUS_MM)
            hit = [k for k in left if near[k]]
            if not hit and near.any():
                continue  # a second peak on a nodule, one nobody is sure of, or at the rim
            self.scores.append(float(heat[tuple(cell)]))
            self.is_hit.append(bool(hit))
            taken = hit[:1]
            left = [k for k in left if k not in taken]

    def add_textures(self, logits: np.ndarray, texture: np.ndarray, heat: np.ndarray) -> None:
        """Whether the texture is right at each centre."""
        for cell in np.argwhere((heat == 1) & (texture >= 0)):
            at = tuple(cell)
            self.textures.append(int(logits[(slice(None), *at)].argmax()) == int(texture[at]))

    def metrics(self) -> dict[str, float]:
        """Means over all samples.

        Returns:
            dice: of the mask at the best threshold against the votes, mean over nodules at the fine
                scale; mask_threshold: that threshold; heat_ap: average precision of the peaks of
                heat-maps, where absence is known; texture_accuracy, where textures are.
        """
        result: dict[str, float] = {}
        if self.dice:
            means = np.mean(self.dice, 0)
            result["dice"] = float(means.max())
            result["mask_threshold"] = float(THRESHOLDS[means.argmax()])
        if self.num_centres:
            result["heat_ap"] = average_precision(self.scores, self.is_hit, self.num_centres)
        if self.textures:
            result["texture_accuracy"] = float(np.mean(self.textures))
        return result


def average_precision(scores: Sequence[float], is_hit: Sequence[bool], num_positives: int) -> float:
    """Area below precision over recall, without interpolation; missed positives count as 0."""
    hits = np.asarray(is_hit, bool)[np.argsort(-np.asarray(scores), kind="stable")]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / num_positives)


def _dices(logits: np.ndarray, votes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(len(THRESHOLDS),) Dice of the mask with the votes as they are, in shares."""
    # A probability is above a threshold where its logit is above the threshold's.
    levels = np.log(THRESHOLDS / (1 - THRESHOLDS))
    total = float((votes * weight).sum())
    result = np.zeros(len(levels))
    for k, level in enumerate(levels):
        mask = (logits > level) * weight
        result[k] = 2 * float((mask * votes).sum()) / max(total + float(mask.sum()), 1e-9)
    return result
