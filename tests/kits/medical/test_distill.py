"""The medical student beside its teacher: what is learned, and what the run says was kept."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml

from core.compress.distill import distill
from core.train.config import TrainerConfig
from core.train.run import write_atomic
from kits.medical import distilling
from kits.medical.config import DistillRunConfig, MedicalTrainConfig
from kits.medical.data.config import PhantomData
from kits.medical.distill_config import nodule_distillation
from kits.medical.distilling import check_teacher, distill_run, flop_per_voxel
from kits.medical.model import UNet, build_network
from kits.medical.model_config import UNetConfig
from kits.medical.retention_report import write_retention_report
from kits.medical.sampling_config import SamplingConfig
from kits.medical.task import MedicalTask, build_task
from kits.medical.trained import load_module
from kits.medical.training import train_run

STUDENT = UNetConfig("student", widths=[4, 8], upsampling="nearest", decoder_convolutions=1)
TEACHER = UNetConfig("teacher", widths=[6, 8, 12], residual=True, norm="instance")


def settings(folder, cls=MedicalTrainConfig, **values):
    trainer = TrainerConfig(
        smoke=True, max_steps=6, progress=False, tensorboard=False, num_threads=1,
        runs_dir=str(folder / "runs"),
    )  # fmt: skip
    data = PhantomData(cache_dir=str(folder / "cache"))
    return cls(trainer=trainer, data=data, **{"model": STUDENT, **values})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distill")


@pytest.fixture(scope="module")
def task(folder) -> MedicalTask:
    return build_task(settings(folder))


def test_the_student_follows_all_outputs_of_a_teacher_with_other_levels(task):
    torch.manual_seed(0)
    teacher = build_network(TEACHER)
    with torch.no_grad():
        # It believes in centres everywhere, so that textures count everywhere.
        teacher.heat.bias.fill_(1.0)
    task.model = build_network(STUDENT)
    cfg = nodule_distillation()
    cfg.label_weight = 0.0
    with distill(task, teacher, cfg) as distilled:
        optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
        batch = next(iter(distilled.batches("train")))
        logs = []
        for _ in range(12):
            step = distilled.step(batch)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            logs.append(step.logs)
    for name in ("mask", "heat", "texture", "total"):
        assert logs[-1][f"distill/{name}"] < logs[0][f"distill/{name}"], name
    assert {"dice", "votes", "heat", "texture"} < logs[0].keys()


def test_samples_drawn_anew_are_not_kept(task, tmp_path):
    cfg = nodule_distillation()
    cfg.cache_dir = str(tmp_path)
    task.model = build_network(STUDENT)
    with pytest.raises(ValueError, match="not the same in two epochs"):
        distill(task, build_network(TEACHER), cfg)


def test_operations_are_counted_per_voxel():
    network = UNet(UNetConfig(widths=[2, 4], upsampling="nearest", decoder_convolutions=1))
    # Two multiply-adds' worth of operations per weight and position; three levels of nothing else.
    full = 27 * (1 * 2 + 2 * 2) + 27 * 2 * 2 + 2 * 1
    half = 27 * (2 * 4 + 4 * 4) + 4 * 2 + 4 * 4 + 4 * (1 + 3)
    assert flop_per_voxel(network) == pytest.approx(2 * (full + half / 8))


def test_samples_have_to_fit_the_teacher(folder):
    cfg = settings(folder, DistillRunConfig, sampling=SamplingConfig(patch=[24, 48, 48]))
    check_teacher(cfg, {"multiple": 8})
    with pytest.raises(ValueError, match=r"no multiples of 32, as the teacher needs"):
        check_teacher(cfg, {"multiple": 32})


def test_controls_are_named():
    with pytest.raises(ValueError, match=r"controls=\['time'\] are not among steps, seconds"):
        DistillRunConfig(controls=["time"])
    with pytest.raises(ValueError, match="needs the speed that steps measures"):
        DistillRunConfig(controls=["seconds"])


def numbers():
    found = {"steps": 6, "cpu_s": 60.0, "num_targets": 10, "num_scans": 4}
    for who in ("teacher", "student"):
        found |= {f"{who}.cpm": 0.8, f"{who}.num_parameters": 2e6, f"{who}.flop_per_voxel": 3e4}
        rates = ("1_8th", "1_4th", "half", "1", "2", "4", "8")
        found |= {f"{who}.sensitivity_at_{rate}_fp": 0.5 for rate in rates}
        found |= {f"hits_kept_at_{rate}_fp.{who}_fp_per_scan": 0.1 for rate in rates}
        found |= {f"hits_kept_at_{rate}_fp.{key}": 0 for rate in rates for key in ("of", "gained")}
    found |= {"hits_kept_at_1_fp": 0.97, "hits_kept_at_1_fp.low": 0.9}
    found |= {"dice_loss_points": -0.4, "dice_loss_points.low": -1, "dice_loss_points.high": 0.2}
    found |= {"published.num_parameters": 125e6, "published.flop_per_voxel": 1.8e6}
    found |= {"num_parameters_ratio": 1.0, "flop_per_voxel_ratio": 1.0}
    return found | {"published_num_parameters_ratio": 62.5, "published_flop_per_voxel_ratio": 60.0}


def test_the_page_says_what_was_reached_and_what_it_is(tmp_path, folder):
    cfg = settings(folder, DistillRunConfig, teacher="runs/<a>")
    cases = SimpleNamespace(name="phantom", fingerprint="ab" * 32)
    page = write_retention_report(tmp_path, numbers(), cfg, cases).read_text()
    assert "97.0 %" in page
    assert "≥ 90.0 % with 95 % confidence" in page
    assert "bound ≥ 96 %: not reached" in page
    assert "−0.40" in page
    assert "≤ 1 point: reached" in page
    assert "1/1.0 of the teacher trained here; goal ≤ 1/30 of the published: reached" in page
    assert "The scans are phantoms" in page
    assert "Research use, unverified" in page
    assert "Smoke run" in page
    assert "runs/&lt;a&gt;" in page
    assert "No control was trained" in page
    assert "<script" not in page
    controls = {f"controls.steps.{key}": value for key, value in numbers().items()}
    page = write_retention_report(tmp_path, numbers() | controls, cfg, cases).read_text()
    assert "no teacher, as many steps" in page


@pytest.mark.slow
def test_a_run_reports_what_was_kept_beside_its_controls(folder):
    teacher = train_run(settings(folder, model=TEACHER))
    cfg = settings(
        folder, DistillRunConfig, teacher=str(teacher), controls=["steps", "seconds"]
    )  # fmt: skip
    run = distill_run(cfg)
    metrics = json.loads((run / "metrics.json").read_text())
    kept = json.loads((run / "retention.json").read_text())
    assert {f"retention.{key}" for key in kept} <= metrics.keys()
    assert kept["controls.steps.steps"] == kept["steps"] == 6
    # Without a teacher to ask, the same time holds more steps.
    assert kept["controls.seconds.steps"] >= 6
    assert kept["num_parameters_ratio"] > 1
    assert "dice_loss_points" in kept
    assert "hits_kept_at_1_fp.of" in kept
    assert (run / "report_retention.html").is_file()
    assert not any(key.startswith("distilling") for key in load_module(run).state_dict())
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["teacher"] == str(teacher)
    assert saved["distill"]["outputs"]["mask"]["boundary"]["strength"] == 1.0


def test_time_is_that_of_all_parts_of_a_run(tmp_path, monkeypatch, folder):
    class Steps:
        def __init__(self, task, cfg, run_dir):
            self.step, self.world = 3, SimpleNamespace(rank=0)

        def fit(self):
            return None

    clock = iter([10.0, 14.0])
    monkeypatch.setattr(distilling, "Trainer", Steps)
    monkeypatch.setattr(distilling.time, "process_time", lambda: next(clock))
    write_atomic(tmp_path / "training_cpu.json", json.dumps({"steps": 1, "cpu_s": 2.0}))
    took = distilling._fit(None, settings(folder), tmp_path)
    assert (took.steps, took.cpu_s) == (3, 6.0)
