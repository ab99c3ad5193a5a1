import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core.train.checkpoint import load_weights
from core.train.distributed import BACKENDS, World, to_device
from tests.core.train.ranks import EPOCHS, OPTIM
from tests.core.train.tiny import TinyModel, TinyTask, train

ROOT = Path(__file__).parents[3]
# Gradients are summed over ranks in another order than over one batch (fp32's last bits), and
# Adam divides by small numbers.
FP32_SUMS = 2e-5
# The same rounding of every product to 11 bits, in other orders.
FP16_SUMS = 2e-2


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Results of both ranks, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "tests.core.train.ranks", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"results-{r}.json").read_text()) for r in range(2)], folder


def alone(tmp_path, task=None, trainer=None):
    return train(tmp_path, task, {**EPOCHS, **(trainer or {})}, OPTIM)


def test_ranks_agree_on_everything(two_ranks):
    (first, second), _ = two_ranks
    assert first == second


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_give_the_loss_curve_of_one_process(two_ranks, tmp_path, parallel):
    (results, _), folder = two_ranks
    curve = alone(tmp_path / "one")
    np.testing.assert_allclose(results[parallel]["losses"], curve, rtol=FP32_SUMS)
    # A checkpoint of two ranks loads in one process.
    model, expected = TinyModel(dropout=0), TinyModel(dropout=0)
    load_weights(folder / parallel / "checkpoints" / "best", model)
    load_weights(tmp_path / "one" / "checkpoints" / "best", expected)
    for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_accumulate_uneven_batches_like_one_process(two_ranks, tmp_path, parallel):
    (results, _), _ = two_ranks
    curve = alone(tmp_path / "one", TinyTask(batch_size=32, num=97))
    np.testing.assert_allclose(results[f"{parallel} accumulate"]["losses"], curve, rtol=FP32_SUMS)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_gradients_are_exchanged_in_the_last_accumulated_batch_only(two_ranks, parallel):
    (results, _), _ = two_ranks
    *earlier, last = results["collectives"][parallel]
    assert earlier == [0, 0]
    assert last > 0


def test_fp16_scaling_works_on_sharded_gradients(two_ranks, tmp_path):
    (results, _), _ = two_ranks
    curve = alone(tmp_path / "one", trainer={"precision": "fp16"})
    np.testing.assert_allclose(results["fsdp fp16"]["losses"], curve, rtol=FP16_SUMS)


def test_nan_of_one_rank_stops_all_and_names_its_samples(two_ranks):
    (results, _), folder = two_ranks
    facts = json.loads((folder / "nan" / "not_finite.json").read_text())
    assert results["nan"]["outcome"].startswith("FloatingPointError: loss=nan at step 2 ")
    assert [42 in rank["samples"] for rank in facts["ranks"]] == [True]
    assert len(facts["ranks"][0]["samples"]) == 8


def test_sigterm_to_one_rank_saves_on_all_and_the_run_goes_on(two_ranks):
    (results, _), _ = two_ranks
    stopped, resumed = results["sigterm"], results["sigterm, resumed"]
    assert stopped["outcome"] == "SystemExit: 0"
    # Bit-equal on the same number of ranks.
    whole = results["fsdp"]["losses"]
    assert stopped["losses"] == whole[: stopped["step"]]
    assert resumed["losses"] == whole[stopped["step"] :]


def test_a_checkpoint_of_two_ranks_goes_on_in_one(two_ranks, tmp_path):
    (results, _), folder = two_ranks
    done = results["half"]["step"]
    rest = train(folder / "half", None, {**EPOCHS, "parallel": "fsdp"}, OPTIM, first_step=done + 1)
    np.testing.assert_allclose(rest, alone(tmp_path / "one")[done:], rtol=FP32_SUMS)


def test_measuring_on_two_ranks_leaves_the_run_unchanged(two_ranks):
    (results, _), folder = two_ranks
    taken = json.loads((folder / "auto" / "checkpoints" / "best" / "state.json").read_text())
    if taken["candidate"]["precision"] == "fp32":
        assert results["auto"]["losses"] == results["ddp"]["losses"]
    assert len(results["auto"]["losses"]) == len(results["ddp"]["losses"])


def test_the_ranks_share_one_run_folder(two_ranks):
    (first, _), folder = two_ranks
    assert [str(path) for path in (folder / "runs" / "kit").iterdir()] == [first["run"]]


def test_every_device_has_its_backend():
    assert BACKENDS == {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"trainer\.device='npu' is not on this machine"):
        World.start("npu")


def test_to_device_reaches_into_dicts_and_sequences():
    batch = {"x": torch.ones(2), "parts": [torch.zeros(1), (torch.ones(1), "name")], "n": 3}
    moved = to_device(batch, torch.device("meta"))
    assert moved["x"].device.type == moved["parts"][1][0].device.type == "meta"
    assert (moved["parts"][1][1], moved["n"]) == ("name", 3)
