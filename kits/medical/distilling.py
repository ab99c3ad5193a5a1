"""The distill verb: a student beside its teacher, and what it kept of it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from core.compress.distill import distill
from core.compress.trial import count_module_flops
from core.kit import Task
from core.train.distributed import World
from core.train.run import Run, write_atomic
from core.train.trainer import Trainer
from kits.medical.answers_file import read_answers
from kits.medical.config import DistillRunConfig
from kits.medical.data.case import Cases
from kits.medical.data.load import open_cases
from kits.medical.distill_config import CONTROLS
from kits.medical.evaluation import asked_of
from kits.medical.headline import write_headline
from kits.medical.looking import Looker, look_at
from kits.medical.model import UNet, build_network, fold_batch_norm
from kits.medical.model_config import TeacherConfig
from kits.medical.network import Network
from kits.medical.retention import Answers, retention_metrics
from kits.medical.smoke import shrink
from kits.medical.stages import stage
from kits.medical.task import MedicalTask
from kits.medical.trained import load_module, load_run_network, read_facts
from kits.medical.training import finish_run, prepare
from kits.medical.validation import crop_metrics

FLOP_SIZE = 64  # voxels along each axis of the sample whose operations are counted
CONTROL_FOLDER = "controls"


@dataclass(frozen=True)
class Trained:
    """What a training took."""

    steps: int
    cpu_s: float  # of all threads


@dataclass(frozen=True)
class Control:
    """The same student, trained on labels alone."""

    task: MedicalTask
    took: Trained


def distill_run(cfg: DistillRunConfig) -> Path:
    """Train the student, evaluate it like any run, and report what it kept of its teacher.

    Returns:
        the run's folder; `metrics.json` has the `retention.` keys besides those of training.
    Raises:
        ValueError: the teacher is no finished run, or cannot take the student's samples.
    """
    cfg = shrink(cfg)
    source = Path(cfg.teacher)
    teacher, facts = load_module(source), read_facts(source)
    check_teacher(cfg, facts)
    cases = open_cases(cfg.data)
    run = Run.create("medical", cfg, cfg.trainer.runs_dir)
    prepare(cases, cfg)
    task = MedicalTask(cases, cfg)
    with distill(task, teacher, cfg.distill) as distilled:
        took = _fit(distilled, cfg, run.path)
    controls: dict[str, Control] = {}
    for name in CONTROLS:
        if name in cfg.controls:
            controls[name] = _fit_control(name, task, cfg, run.path, (took, controls))
    World.leave()
    if run.is_writer:
        metrics = finish_run(run, task, cases, cfg)
        metrics |= write_retention(run, cases, cfg, took, controls)
        run.write_metrics(metrics)
        text = write_headline(run.path, metrics, is_smoke=cfg.trainer.smoke)
        print(text, end="")
    return run.path


def check_teacher(cfg: DistillRunConfig, facts: Mapping[str, Any]) -> None:
    """Samples have to fit both networks.

    Raises:
        ValueError: a size of the patch is no multiple of the teacher's.
    """
    multiple = int(facts["multiple"])
    if any(size % multiple for size in cfg.sampling.patch):
        raise ValueError(
            f"sampling.patch={cfg.sampling.patch} has sizes that are no multiples of {multiple}, "
            f"as the teacher needs (teacher={cfg.teacher}); set sampling.patch"
        )


def write_retention(
    run: Run,
    cases: Cases,
    cfg: DistillRunConfig,
    took: Trained,
    controls: Mapping[str, Control],
) -> dict[str, float]:
    """Compare teacher, student and controls on the test split.

    Writes retention.json and report_retention.html.

    Returns:
        the same numbers as keys of metrics.json: with `retention.` before.
    """
    from kits.medical.retention_report import write_retention_report

    source = Path(cfg.teacher)
    is_shown = cfg.trainer.progress
    teacher, student = (_answers(path, cases, is_shown) for path in (source, run.path))
    found = retention_metrics(teacher, student)
    found |= _sizes({"teacher": load_module(source), "student": load_module(run.path)})
    found |= {"steps": took.steps, "cpu_s": took.cpu_s}
    for name, control in controls.items():
        seen = _look(_control_looker(control.task, cfg), cases, f"control {name}", is_shown)
        kept = retention_metrics(teacher, seen)
        kept |= {"steps": control.took.steps, "cpu_s": control.took.cpu_s}
        found |= {f"controls.{name}.{key}": value for key, value in kept.items()}
    write_atomic(run.path / "retention.json", json.dumps(found, indent=2) + "\n")
    write_retention_report(run.path, found, cfg, cases)
    return {f"retention.{key}": value for key, value in found.items()}


def _sizes(networks: Mapping[str, UNet]) -> dict[str, float]:
    """Parameters and operations of teacher and student, and of the teacher's published size."""
    with torch.device("meta"):
        published = UNet(TeacherConfig())
    found: dict[str, float] = {}
    for who, module in {**networks, "published": published}.items():
        found[f"{who}.num_parameters"] = sum(p.numel() for p in module.parameters())
        found[f"{who}.flop_per_voxel"] = flop_per_voxel(module)
    for what in ("num_parameters", "flop_per_voxel"):
        for who, prefix in (("teacher", ""), ("published", "published_")):
            found[f"{prefix}{what}_ratio"] = found[f"{who}.{what}"] / found[f"student.{what}"]
    return found


def _answers(run: Path, cases: Cases, is_shown: bool) -> Answers:
    """Of a run's network to the test split, as its evaluation kept them or asked for now."""
    asked = asked_of(run, cases, "test", is_mirrored=True)
    if (kept := read_answers(run, asked)) is not None:
        return kept
    return _look(_looker(run), cases, run.name, is_shown)


def _look(looker: Looker, cases: Cases, who: str, is_shown: bool) -> Answers:
    with stage(f"looking at test cases, {who}", is_shown=is_shown) as told:
        return Answers.of(look_at(cases, cases.names("test"), looker, told))


@torch.no_grad()
def flop_per_voxel(module: UNet) -> float:
    """Operations for each voxel of an input, two for each multiply-add; batch norms folded."""
    size = max(FLOP_SIZE, module.cfg.multiple)
    network = copy.deepcopy(fold_batch_norm(module)).to("meta")
    image = torch.empty(1, 1, size, size, size, device="meta")
    total = count_module_flops(
        network, {"image": image}, lambda model, example: model(example["image"])
    )
    return total / image.numel()


def _fit(task: Task[Any], cfg: DistillRunConfig, folder: Path) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(task, cfg, run_dir=folder)
    # A run that goes on has lost what its first part took, so that is kept beside it.
    path, before, start_s = folder / "training_cpu.json", 0.0, time.process_time()
    if path.is_file():
        before = float(json.loads(path.read_text(encoding="utf-8"))["cpu_s"])
    try:
        trainer.fit()
    finally:
        took = Trained(trainer.step, before + time.process_time() - start_s)
        if trainer.world.rank == 0:
            write_atomic(path, json.dumps({"steps": took.steps, "cpu_s": took.cpu_s}) + "\n")
    return took


def _fit_control(
    name: str,
    student: MedicalTask,
    cfg: DistillRunConfig,
    folder: Path,
    known: tuple[Trained, Mapping[str, Control]],
) -> Control:
    """The same student on labels alone, for as many steps or for as much processor time."""
    took, earlier = known
    trainer = cfg.trainer
    if name == "seconds":
        plain = earlier["steps"].took
        steps = max(1, round(took.cpu_s * plain.steps / plain.cpu_s))
        epochs = -(-steps * trainer.accumulate // len(student.batches("train")))
        trainer = replace(trainer, max_steps=steps, epochs=epochs)
    task = copy.copy(student)
    # The very weights that the student began with.
    torch.manual_seed(cfg.trainer.seed)
    task.model = build_network(cfg.model)
    return Control(task, _fit(task, replace(cfg, trainer=trainer), folder / CONTROL_FOLDER / name))


def _looker(run: Path) -> Looker:
    facts = read_facts(run)
    return Looker(
        load_run_network(run),
        int(facts["multiple"]),
        float(facts["mask_threshold"]),
        tuple(facts.get("sample", Looker.sample)),
        is_mirrored=True,
    )


def _control_looker(task: MedicalTask, cfg: DistillRunConfig) -> Looker:
    """A control in memory, with the threshold that its own validation chose."""
    module = task.model
    assert isinstance(module, UNet)
    network = Network(fold_batch_norm(module))
    found = crop_metrics(network, task.crops["validation"], cfg.sampling)
    return Looker(
        network,
        module.cfg.multiple,
        found.get("mask_threshold", 0.5),
        cfg.sampling.shape,
        is_mirrored=True,
    )
