from dataclasses import replace

import numpy as np
import pytest
import torch

from core.train.trainer import Trainer
from kits.defect.task import DefectTask, collate


def test_it_learns_to_find_rectangles(rectangles, train_config, tmp_path):
    cfg = train_config()
    cfg.trainer = replace(cfg.trainer, num_threads=1)
    cfg.sampling = replace(cfg.sampling, samples_per_epoch=720, batch_size=8)
    cfg.optim = replace(cfg.optim, lr=6e-3, clip_norm=10.0)
    task = DefectTask(rectangles(), cfg)
    before = task.evaluate("validation")
    Trainer(task, cfg, run_dir=tmp_path).fit()
    after = task.evaluate("validation")
    assert before["map50"] < 0.2
    assert after["map50"] > 0.6
    assert after["f_at_iou_0.33"] > 0.6


def test_an_epoch_is_drawn_again(rectangles, train_config):
    task = DefectTask(rectangles(has_template=True), train_config())
    passes = []
    for epoch in (0, 0, 1):
        batches = task.batches("train")
        batches.set_epoch(epoch)
        passes.append(list(batches))
    assert task.planes == 3
    assert all(
        torch.equal(one[name], again[name])
        for one, again in zip(passes[0], passes[1], strict=True)
        for name in one
    )
    assert not torch.equal(passes[0][0]["image"], passes[2][0]["image"])


def test_a_resumed_pass_skips_to_the_same_batch(rectangles, train_config):
    task = DefectTask(rectangles(), train_config())
    whole, rest = task.batches("train"), task.batches("train")
    rest.skip(1)
    second = list(whole)[1]
    assert torch.equal(second["image"], next(iter(rest))["image"])


def test_bf16_trains(rectangles, train_config, tmp_path):
    cfg = train_config()
    cfg.trainer = replace(cfg.trainer, max_steps=2, precision="bf16", metric=None, num_threads=1)
    cfg.sampling = replace(cfg.sampling, size_px=64)
    Trainer(DefectTask(rectangles(), cfg), cfg, run_dir=tmp_path).fit()


def test_rows_without_a_box_have_no_class(rectangles, train_config):
    task = DefectTask(rectangles(), train_config())
    empty = task._sample(0, 0, np.zeros(16, np.int64))
    empty = replace(empty, boxes=np.zeros((0, 4), np.float32), classes=np.zeros(0, np.int64))
    batch = collate([empty, empty])
    assert batch["classes"].tolist() == [[-1], [-1]]
    assert batch["image"].dtype == torch.uint8


def test_data_without_defects_are_refused(rectangles, train_config):
    images = rectangles(sizes={"train": 1, "validation": 4, "test": 1})
    images.load = lambda name: replace(
        rectangles().load(name), boxes_px=np.zeros((0, 4), np.float32), classes=np.zeros(0, int)
    )
    with pytest.raises(ValueError, match="the train split of data=rectangles has no defect"):
        DefectTask(images, train_config())


def test_samples_that_the_network_cannot_halve_are_refused(rectangles, train_config, monkeypatch):
    from kits.defect import task

    monkeypatch.setattr(task, "build_network", lambda *_: type("Deep", (), {"multiple": 64})())
    with pytest.raises(ValueError, match="is not a multiple of 64"):
        DefectTask(rectangles(), train_config())
