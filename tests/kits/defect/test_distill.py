import json
from dataclasses import replace

import pytest
import torch

from core.train.config import OptimConfig, TrainerConfig
from kits.defect.config import DistillRunConfig
from kits.defect.data.config import RenderedData
from kits.defect.distill_config import detector_distillation
from kits.defect.distilling import DenseTeacher, distill_run
from kits.defect.graph import build_network
from kits.defect.head import dense
from kits.defect.model_config import QuarterKitConfig, TinyConfig


def config(smoke_run, folder):
    return DistillRunConfig(
        teacher=str(smoke_run),
        model=QuarterKitConfig(attention="none"),
        trainer=TrainerConfig(
            smoke=True, max_steps=2, metric=None, tensorboard=False, progress=False,
            num_threads=1, runs_dir=str(folder),
        ),
        optim=OptimConfig(lr=1e-3),
    )  # fmt: skip


def test_a_student_learns_from_a_run_and_says_what_it_kept(smoke_run, tmp_path):
    run = distill_run(config(smoke_run, tmp_path))
    metrics = json.loads((run / "metrics.json").read_text())
    before = json.loads((smoke_run / "metrics.json").read_text())
    assert metrics["retention.teacher.map50"] == pytest.approx(before["map50"])
    assert metrics["retention.student.map50"] == metrics["map50"]
    assert 1 < metrics["retention.num_parameters_ratio"] < 1.1
    assert not any("distilling" in name for name in state_of(run))


def state_of(run):
    from kits.defect.trained import load_module

    return load_module(run).state_dict()


def test_images_of_other_planes_are_refused(smoke_run, tmp_path):
    cfg = replace(config(smoke_run, tmp_path), data=RenderedData(template=True))
    with pytest.raises(ValueError, match="templates"):
        distill_run(cfg)


def test_published_and_own_networks_answer_the_same_questions():
    teacher = DenseTeacher(build_network(TinyConfig(width=0.125), 1, 3))
    student = build_network(QuarterKitConfig(), 1, 3).train()
    image = torch.rand(2, 1, 64, 64)
    theirs = teacher(image)
    ours = dense(student.head, student.maps_of(student(image)))
    for name, loss in detector_distillation().outputs.items():
        assert ours[name].shape == theirs[name].shape
        assert not loss.where or theirs[loss.where].shape == (2, 1, *ours[name].shape[2:])


def test_the_teachers_boxes_are_those_it_predicts():
    network = build_network(TinyConfig(width=0.125), 1, 2).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        found = dense(network.head, network.maps_of(network.maps(image)))
        boxes = network(image)["boxes"][0]
    # The first cell of the coarsest map: middle 16, 16.
    sides = found["box_32"][0, :, 0, 0] * 32
    corners = torch.stack([16 - sides[0], 16 - sides[1], 16 + sides[2], 16 + sides[3]])
    assert (boxes - corners).abs().amax(1).min() < 1e-3
