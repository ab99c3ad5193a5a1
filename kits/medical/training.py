"""The train verb: fit a network, choose its thresholds on validation cases, leave a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from core.train.distributed import World
from core.train.run import Run, write_atomic
from core.train.trainer import Trainer
from kits.medical.augment import plain_sample
from kits.medical.config import MedicalTrainConfig
from kits.medical.data.case import Cases
from kits.medical.data.load import open_cases
from kits.medical.data.making import make_cases
from kits.medical.evaluation import evaluate_run
from kits.medical.findings import TEXTURES
from kits.medical.headline import write_headline
from kits.medical.infer.find import find_nodules
from kits.medical.looking import Looker, scan_result
from kits.medical.metrics.froc import froc, threshold_at
from kits.medical.scale import COARSE_MM, FINE_SLICE_MM, THICKEST_MM
from kits.medical.smoke import shrink
from kits.medical.stages import Told, stage, tell_nobody
from kits.medical.task import MedicalTask
from kits.medical.trained import FACTS, SAMPLES, load_run_network
from kits.medical.validation import crop_metrics

__all__ = ["finish_run", "load_run_network", "train_run"]

NUM_SAMPLES = 32  # for the ranges of 8-bit numbers
FP_PER_SCAN = 1.0
MAX_SCANS = 12  # that the threshold is chosen on
THRESHOLD_RANGE = (0.05, 0.95)
UNKNOWN_THRESHOLD = 0.5  # patches have no rate of false positives


def train_run(cfg: MedicalTrainConfig) -> Path:
    """Train, and evaluate on the test split.

    Returns:
        the run's folder.
    """
    cfg = shrink(cfg)
    cases = open_cases(cfg.data)
    run = Run.create("medical", cfg, cfg.trainer.runs_dir)
    prepare(cases, cfg)
    task = MedicalTask(cases, cfg)
    Trainer(task, cfg, run_dir=run.path).fit()
    World.leave()
    if run.is_writer:
        metrics = finish_run(run, task, cases, cfg)
        text = write_headline(run.path, metrics, is_smoke=cfg.trainer.smoke)
        print(text, end="")
    return run.path


def prepare(cases: Cases, cfg: MedicalTrainConfig) -> None:
    """Make what has to be made of the data before it is read."""
    with stage("simulating scans", is_shown=cfg.trainer.progress) as told:
        make_cases(cases, ("train", "validation", "test"), told)


def finish_run(
    run: Run, task: MedicalTask, cases: Cases, cfg: MedicalTrainConfig
) -> dict[str, Any]:
    """Write what a run is worth and what is needed to use it.

    model/model.json, model/samples.npz (real inputs, which stay in the run), data.json,
    metrics.json, report.html, answers.json.

    Returns:
        the content of metrics.json.
    """
    record_data(run, cases)
    network = load_run_network(run.path)
    found = crop_metrics(network, task.crops["validation"], cfg.sampling)
    looker = Looker(network, cfg.model.multiple, found.get("mask_threshold", 0.5))
    is_shown = cfg.trainer.progress
    with stage("choosing the threshold", is_shown=is_shown) as told:
        found["threshold"] = score_threshold(cases, looker, told)
    write_model(run, task, cases, cfg, found)
    with stage("looking at test cases", is_shown=is_shown) as told:
        return evaluate_run(run.path, cases, "test", told=told)


def score_threshold(cases: Cases, looker: Looker, told: Told = tell_nobody) -> float:
    """The lowest score that gives at most FP_PER_SCAN false positives on validation scans."""
    scans = []
    names = cases.names("validation")[:MAX_SCANS]
    for number, name in enumerate(names):
        told(number, len(names), name)
        case = cases.load(name)
        if case.extent == "scan":
            found = find_nodules(case.volume, looker.network, looker.settings())
            scans.append(scan_result(case, found, cases.max_readers))
    if not any(target.is_included for scan in scans for target in scan.targets):
        return UNKNOWN_THRESHOLD
    return float(np.clip(threshold_at(froc(scans), FP_PER_SCAN), *THRESHOLD_RANGE))


def record_data(run: Run, cases: Cases) -> None:
    """Which data a run saw, and how many cases of each split."""
    splits = ("train", "validation", "test")
    numbers = {f"num_{split}": len(cases.names(split)) for split in splits}  # type: ignore[arg-type]
    run.record_data(cases.fingerprint, name=cases.name, **numbers)


def write_model(
    run: Run,
    task: MedicalTask,
    cases: Cases,
    cfg: MedicalTrainConfig,
    validation: dict[str, float],
) -> None:
    """Write the model's facts, and samples of its inputs."""
    (run.path / "model").mkdir(exist_ok=True)
    facts: dict[str, Any] = {
        "model": cfg.model.name,
        "widths": list(cfg.model.widths),
        "num_parameters": sum(p.numel() for p in task.model.parameters()),
        "multiple": cfg.model.multiple,
        "sample": list(cfg.sampling.shape),
        "threshold": validation["threshold"],  # of findings
        "mask_threshold": validation.get("mask_threshold", 0.5),
        "textures": list(TEXTURES),
        "coarse_mm": COARSE_MM,
        "thickest_mm": THICKEST_MM,
        "fine_slice_mm": FINE_SLICE_MM,
        "data": cases.name,
        "data_sha256": cases.fingerprint,
        "max_readers": cases.max_readers,
        "target": cfg.sampling.target,
        "validation": validation,
    }
    write_atomic(run.path / FACTS, json.dumps(facts, indent=2) + "\n")
    crops = task.crops["train"]
    chosen = np.unique(np.linspace(0, len(crops) - 1, NUM_SAMPLES).astype(int))
    images = [plain_sample(crops[k], cfg.sampling).image[None] for k in chosen]
    np.savez_compressed(run.path / SAMPLES, image=np.stack(images))
