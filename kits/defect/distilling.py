"""The distill verb: a narrow network beside its teacher, and what it kept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core.compress.distill import distill
from core.train.run import Run
from core.train.trainer import Trainer
from kits.defect.config import DistillRunConfig
from kits.defect.data.image_set import ImageSet, names_of
from kits.defect.data.load import open_images
from kits.defect.evaluation import assess, check_images, look, settings_of
from kits.defect.graph import Network, fused
from kits.defect.head import dense
from kits.defect.smoke import shrink
from kits.defect.task import DefectTask
from kits.defect.trained import load_module, load_run_network, read_facts
from kits.defect.training import finish_run

KEPT = ("map50", "map50_95", "f_at_iou_0.33", "detection_rate")


class DenseTeacher(nn.Module):
    """A trained network that says of each cell what it sees, in training and out of it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """As `dense`."""
        network = self.network
        return dense(network.head, network.maps_of(network.maps(image)))


def distill_run(cfg: DistillRunConfig) -> Path:
    """Train the student, evaluate it like any run, and report what it kept of its teacher.

    Returns:
        the run's folder; `metrics.json` has the `retention.` keys besides those of training.
    Raises:
        ValueError: the teacher is no finished run, or sees other planes or classes.
    """
    cfg = shrink(cfg)
    source = Path(cfg.teacher)
    facts, images = read_facts(source), open_images(cfg.data)
    check_images(facts, images)
    run = Run.create("defect", cfg, cfg.trainer.runs_dir)
    task = DefectTask(images, cfg)
    if int(facts["planes"]) != task.planes:
        raise ValueError(
            f"teacher={cfg.teacher} sees {facts['planes']} planes, these images have "
            f"{task.planes}; choose another teacher"
        )
    network = task.network

    def read(output: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dense(network.head, network.maps_of(output))

    teacher = DenseTeacher(fused(load_module(source)))
    with distill(task, teacher, cfg.distill, read_student=read) as distilled:
        Trainer(distilled, cfg, run_dir=run.path).fit()
    if run.is_writer:
        finish_run(run, task, images, cfg)
        write_retention(run, images, source)
    return run.path


def write_retention(run: Run, images: ImageSet, teacher: Path) -> dict[str, float]:
    """Teacher and student on the same split: the numbers of both, and their ratios."""
    path = run.path / "metrics.json"
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    facts = read_facts(teacher)
    seen = look(
        images, names_of(images, metrics["split"]), load_run_network(teacher), settings_of(facts)
    )
    theirs = assess(seen, float(facts["threshold"]), images.class_names).metrics
    found: dict[str, float] = {}
    for key in KEPT:
        if key in theirs:
            found |= {f"teacher.{key}": theirs[key], f"student.{key}": metrics[key]}
    sizes = {"teacher": load_module(teacher), "student": load_module(run.path)}
    for who, module in sizes.items():
        found[f"{who}.num_parameters"] = sum(p.numel() for p in fused(module).parameters())
    found["num_parameters_ratio"] = (
        found["teacher.num_parameters"] / found["student.num_parameters"]
    )
    run.write_metrics({**metrics, **{f"retention.{key}": value for key, value in found.items()}})
    return found
