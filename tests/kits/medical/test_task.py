"""The task on made-up cases: order, repeatability, numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.train.config import TrainerConfig
from kits.medical.config import MedicalTrainConfig
from kits.medical.data.case import Case, TrueNodule
from kits.medical.geometry import Grid, Volume
from kits.medical.model_config import UNetConfig
from kits.medical.sampling_config import SamplingConfig
from kits.medical.task import MedicalTask, check_patch

SHAPE = (24, 40, 40)


class MadeUpCases:
    """A bright ball in every case."""

    name, fingerprint, max_readers = "made-up", "0" * 64, 4

    def __init__(self, extent="scan", num_readers=4):
        self.extent, self.num_readers = extent, num_readers

    def names(self, split):
        return [f"{split}-0", f"{split}-1"]

    def load(self, name):
        place = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
        is_ball = np.linalg.norm(place - (12, 20, 16 + int(name[-1])), axis=-1) <= 4
        votes = is_ball * np.uint8(2**self.num_readers - 1)
        whole = tuple(slice(0, n) for n in SHAPE)
        nodule = TrueNodule(name, whole, votes, self.num_readers, 6.0, texture=5.0)
        grid = Grid(SHAPE, (1.25, 0.7, 0.7), (0.0, 0.0, 0.0), np.eye(3)[::-1])
        voxels = np.where(is_ball, 40, -850).astype(np.int16)
        lungs = np.ones(SHAPE, bool)
        return Case(name, name, Volume(grid, voxels), (nodule,), self.extent, lungs=lungs)


def make_task(cases=None, **changes):
    cfg = MedicalTrainConfig(
        model=UNetConfig("tiny", [4, 6]),
        sampling=SamplingConfig(
            patch=[16, 16, 16], batch_size=2, samples_per_epoch=8, lung_crops=2, **changes
        ),
        trainer=TrainerConfig(num_threads=1),
    )
    return MedicalTask(cases or MadeUpCases(), cfg)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_pass_can_be_repeated_and_each_epoch_is_new():
    first, again = (list(make_task().batches("train")) for _ in range(2))
    assert len(first) == 4
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    batches = make_task().batches("train")
    batches.set_epoch(1)
    assert not same(next(iter(batches)), first[0])


def test_a_pass_goes_on_where_it_stopped():
    whole = list(make_task().batches("train"))
    batches = make_task().batches("train")
    batches.skip(2)
    assert same(next(iter(batches)), whole[2])


def test_training_makes_the_loss_smaller():
    task = make_task()
    batch = next(iter(task.batches("train")))
    optimizer = torch.optim.Adam(task.model.parameters(), 0.01)
    values = []
    for _ in range(15):
        step = task.step(batch)
        step.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(float(step.loss.detach()))
    assert values[-1] < 0.7 * values[0]
    assert set(step.logs) == {"dice", "votes", "heat", "texture"}


def test_validation_gives_loss_dice_peaks_and_textures():
    found = make_task().evaluate("validation")
    assert set(found) == {"loss", "dice", "mask_threshold", "heat_ap", "texture_accuracy"}
    assert make_task().evaluate("validation") == found


def test_patches_have_no_precision_of_peaks():
    assert "heat_ap" not in make_task(MadeUpCases("patch")).evaluate("validation")


def test_validating_leaves_the_network_in_training():
    task = make_task()
    task.model.train()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.evaluate("validation")
    assert task.model.training
    assert all(torch.equal(before[name], v) for name, v in task.model.state_dict().items())


def test_the_example_is_one_image():
    assert make_task().example()["image"].shape == (1, 1, 16, 16, 16)


def test_whole_scans_are_not_scored_here():
    with pytest.raises(ValueError, match=r"kits\.medical\.evaluate"):
        make_task().evaluate("test")


def test_cases_without_a_nodule_are_refused():
    with pytest.raises(ValueError, match="has no nodule"):
        make_task(MadeUpCases(num_readers=1))


def test_a_patch_of_odd_sizes_is_refused():
    with pytest.raises(ValueError, match="even sizes"):
        SamplingConfig(patch=[16, 16, 15])


@pytest.mark.parametrize(
    ("patch", "message"), [([16, 16, 18], "multiples of 4"), ([8, 16, 16], "fewer than 3")]
)
def test_a_patch_that_does_not_fit_the_network_is_refused(patch, message):
    cfg = MedicalTrainConfig(
        model=UNetConfig("tiny", [4, 6, 8]), sampling=SamplingConfig(patch=patch)
    )
    with pytest.raises(ValueError, match=message):
        MedicalTask(MadeUpCases(), cfg)


def test_flat_levels_take_samples_of_fewer_slices():
    cfg = MedicalTrainConfig(
        model=UNetConfig("tiny", [4, 6, 8], flat=1), sampling=SamplingConfig(patch=[8, 16, 16])
    )
    check_patch(cfg)
    with pytest.raises(ValueError, match="give 6, 12, 12 or more"):
        check_patch(replace(cfg, sampling=SamplingConfig(patch=[8, 16, 8])))
