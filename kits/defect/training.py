"""The train verb: fit a network, choose its threshold on validation images, leave a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from core.train.run import Run, write_atomic
from core.train.trainer import Trainer
from kits.defect.augment import training_sample
from kits.defect.config import DefectTrainConfig
from kits.defect.data.image_set import SPLITS, ImageSet
from kits.defect.data.load import open_images
from kits.defect.detecting import Detecting
from kits.defect.planes import planes_of
from kits.defect.smoke import shrink
from kits.defect.task import DefectTask
from kits.defect.trained import FACTS, SAMPLES, save_network
from kits.defect.verdicts import FROZEN

NUM_SAMPLES = 64  # for the ranges of 8-bit numbers
NUM_FROZEN = 32  # for the verdicts that all runtimes must agree on
# A network that knows so little that it would choose another threshold should not be used.
THRESHOLD_RANGE = (0.1, 0.9)
# The nms step of a bundle: what is worth a line's time.
MAX_BOXES = 100


def train_run(cfg: DefectTrainConfig) -> Path:
    """Train, and evaluate on the test split.

    Returns:
        the run's folder.
    """
    cfg = shrink(cfg)
    images = open_images(cfg.data)
    run = Run.create("defect", cfg, cfg.trainer.runs_dir)
    task = DefectTask(images, cfg)
    Trainer(task, cfg, run_dir=run.path).fit()
    if run.is_writer:
        finish_run(run, task, images, cfg)
    return run.path


def finish_run(run: Run, task: DefectTask, images: ImageSet, cfg: DefectTrainConfig) -> None:
    """Write what a run is worth and what is needed to use it.

    model/ (model.yaml, weights.safetensors, model.json, samples.npz: real inputs, which stay in the
    run), data.json, metrics.json, report.html.
    """
    from kits.defect.evaluation import evaluate_run

    numbers = {f"num_{split}": len(images.names(split)) for split in SPLITS}
    run.record_data(images.fingerprint, name=images.name, **numbers)
    write_model(run, task, images, cfg, task.evaluate("validation"))
    evaluate_run(run.path, images, "test" if images.names("test") else "validation")


def write_model(
    run: Run,
    task: DefectTask,
    images: ImageSet,
    cfg: DefectTrainConfig,
    validation: dict[str, float],
) -> None:
    """Write the network, its facts, and samples of its inputs."""
    (run.path / "model").mkdir(exist_ok=True)
    network, settings = task.network, Detecting(task.network.multiple)
    save_network(run.path, network)
    facts: dict[str, Any] = {
        "model": cfg.model.name,
        "graph": cfg.model.graph,
        "width": cfg.model.width,
        "num_parameters": sum(p.numel() for p in network.parameters()),
        "multiple": network.multiple,
        "planes": task.planes,
        "has_template": images.has_template,
        "class_names": list(images.class_names),
        # Of defects, by F at IoU 0.33.
        "threshold": float(np.clip(validation["threshold"], *THRESHOLD_RANGE)),
        "nms": {"iou": settings.iou, "max_boxes": MAX_BOXES},
        "size_px": cfg.sampling.size_px,
        "data": images.name,
        "data_sha256": images.fingerprint,
        "validation": validation,
    }
    write_atomic(run.path / FACTS, json.dumps(facts, indent=2) + "\n")
    np.savez_compressed(run.path / SAMPLES, image=_samples(task))
    kept = task.images["validation"][:NUM_FROZEN]
    np.savez_compressed(
        run.path / FROZEN,
        **{f"{k:03}": planes_of(one.pixels, one.template) for k, one in enumerate(kept)},
    )


def _samples(task: DefectTask) -> np.ndarray:
    """(n, P, S, S) uint8 from training images."""
    chosen = task.images["train"]
    chosen = [
        chosen[k] for k in np.unique(np.linspace(0, len(chosen) - 1, NUM_SAMPLES).astype(int))
    ]
    rng = np.random.default_rng(task.seed)
    cfg = task.cfg
    return np.stack(
        [training_sample([one], cfg.sampling, cfg.tiling, rng).planes for one in chosen]
    )
