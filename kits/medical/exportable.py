"""A finished run as what its bundle is made of: the folded network, samples, metric, provenance.

Nothing that leaves the machine comes from a patient: inputs in a bundle are drawn here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy import ndimage

from core.convert.source import Arrays, Axis, Sizes, Source
from core.kit import Exportable, Metric
from edge.target import Tolerance
from kits.medical.config import MedicalTrainConfig
from kits.medical.model import HIGHEST_HU, LOWEST_HU, OUTPUT_NAMES, fold_batch_norm
from kits.medical.model_config import UNetConfig
from kits.medical.sampling_config import LossConfig, SamplingConfig
from kits.medical.trained import SAMPLES, best_checkpoint, load_module, read_facts

SMALLEST, STEPS = 16, 2  # voxels of an axis that is tried; the largest is as many steps more
MAX_BATCH = 4
# Validation crops that the metric scores: it is asked for each layer that may stay in float.
METRIC_CROPS = 48
SLICES, ROWS, COLUMNS = "depth", "height", "width"
# Rounding errors of a sum go with its terms: logits of 7, the usual size, are sums of some tens.
BFLOAT16 = Tolerance(
    0.3,
    5e-2,
    "logits of about 7 from terms that cancel; 0.3 moves a probability by 0.07 at the most",
)
INTENDED_USE = (
    "Research use only; not a medical device. Marks possible lung nodules on chest CT in "
    "Hounsfield units for a reader who verifies each of them. It was trained on the data that its "
    "provenance names; a model trained on phantoms has never seen a patient."
)
FACTS = (
    "multiple", "threshold", "mask_threshold", "textures", "coarse_mm", "thickest_mm",
    "fine_slice_mm", "model", "widths", "num_parameters", "data", "max_readers", "validation",
)  # fmt: skip


def open_run(run: Path) -> Exportable:
    """Read a run's folder.

    Raises:
        ValueError: the run is not finished, or an earlier version wrote it.
    """
    facts, samples = read_facts(run), read_samples(run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    multiple = int(facts["multiple"])
    sizes = np.array([SMALLEST] * 3) if multiple <= SMALLEST else np.array([2 * multiple] * 3)
    example = draw({"batch": 1} | dict(zip((SLICES, ROWS, COLUMNS), sizes, strict=True)))
    low, high = int(sizes[0]), int(sizes[0]) + STEPS * multiple
    axes = {
        k + 2: Axis(name, low, high, multiple) for k, name in enumerate((SLICES, ROWS, COLUMNS))
    }
    return Exportable(
        source=Source(
            name="medical",
            origin=f"medical run: {facts['model']}, a 3D U-Net with {facts['widths']} channels",
            module=fold_batch_norm(load_module(run)),
            example={"image": torch.from_numpy(example["image"])},
            output_names=OUTPUT_NAMES,
            axes={"image": {0: Axis("batch", 1, MAX_BATCH), **axes}},
            draw=draw,
        ),
        pre=[],
        post=[],
        calibration=samples,
        metric=_metric(config),
        metric_name="validation_score",
        config_schema={"type": "object", "properties": {}, "additionalProperties": False},
        config_default={},
        provenance={
            "network": str(best_checkpoint(run).relative_to(run)),
            **{name: facts[name] for name in FACTS if name in facts},
        },
        license="Apache-2.0",
        intended_use=INTENDED_USE,
        tolerances={"bfloat16": BFLOAT16},
    )


def read_samples(run: Path) -> Arrays:
    """Real inputs that training left.

    Raises:
        ValueError: there are none.
    """
    path = run / SAMPLES
    if not path.is_file():
        raise ValueError(f"run={run} has no {SAMPLES}; train again")
    with np.load(path, allow_pickle=False) as archive:
        return {"image": archive["image"].astype(np.float32)}


def draw(sizes: Sizes, rng: np.random.Generator | None = None) -> Arrays:
    """Nobody's lungs: parenchyma with grain, a wall, vessels and balls of nodules' densities."""
    rng = rng or np.random.default_rng(0)
    shape = (sizes[SLICES], sizes[ROWS], sizes[COLUMNS])
    return {"image": np.stack([_lung(shape, rng)[None] for _ in range(sizes["batch"])])}


def _lung(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """(D, H, W) float32 HU."""
    image = np.full(shape, rng.uniform(-900, -800), np.float32)
    place = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1)
    place = place.astype(np.float32)
    for number in range(6):
        direction = rng.standard_normal(3).astype(np.float32)
        direction /= np.linalg.norm(direction)
        offset = place - (rng.uniform(0, 1, 3) * shape).astype(np.float32)
        along = offset @ direction
        square = (offset**2).sum(-1)
        if number == 0:  # the chest wall
            image[along > 0.45 * max(shape)] = rng.uniform(0, 80)
        elif number < 4:  # vessels
            image[square - along**2 < rng.uniform(0.5, 2) ** 2] = rng.uniform(-200, 100)
        else:
            image[square < rng.uniform(2, 6) ** 2] = rng.uniform(-700, 100)
    noise = rng.standard_normal(shape, dtype=np.float32) * rng.uniform(10, 60)
    # Rounded, as scans are.
    result: np.ndarray = np.round(ndimage.gaussian_filter(image, 0.7) + noise)
    return result.clip(LOWEST_HU, HIGHEST_HU).astype(np.float32)


def train_config(config: Mapping[str, Any]) -> MedicalTrainConfig:
    """The part of a run's config.yaml that decides which crops it saw."""
    from kits.medical.kit import KIT

    cls = KIT.groups["data"][config["data"]["name"]]
    given = config["data"]
    data = cls(**{f.name: _value(given[f.name]) for f in fields(cls) if f.init})
    cfg = MedicalTrainConfig(
        data=data,
        model=UNetConfig(**config["model"]),
        sampling=SamplingConfig(**config["sampling"]),
        loss=LossConfig(**config["loss"]),
    )
    cfg.trainer.smoke, cfg.trainer.seed = config["trainer"]["smoke"], config["trainer"]["seed"]
    return cfg


def _value(value: Any) -> Any:
    # YAML has no tuples.
    return tuple(value) if isinstance(value, list) else value


def _metric(config: Mapping[str, Any]) -> Metric:
    """Mean of Dice and of the peaks' average precision on validation crops, cut at the first call.

    Compression chooses by it which layers stay in float, so nothing of the test split is in it.
    """
    from kits.medical.validation import crop_metrics

    crops: list[Any] = []

    def metric(predict: Any) -> dict[str, float]:
        from kits.medical.data.load import open_cases
        from kits.medical.task import cut_crops, spread

        cfg = train_config(config)
        if not crops:
            crops.extend(spread(cut_crops(open_cases(cfg.data), "validation", cfg), METRIC_CROPS))
        found = crop_metrics(predict, crops, cfg.sampling)
        parts = [found[name] for name in ("dice", "heat_ap") if name in found]
        return {**found, "validation_score": float(np.mean(parts))}

    return metric
