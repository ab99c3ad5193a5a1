import json
import os
import pickle

import pytest
import torch
from torch import nn

from core.train import checkpoint
from core.train.checkpoint import (
    Checkpoints,
    load_facts,
    load_optimizer,
    load_tensors,
    load_weights,
    optimizer_tensors,
)
from core.train.distributed import World
from tests.core.train.tiny import TinyTask, train

ALONE = World(torch.device("cpu"))


def save(checkpoints, step, value=0.0, *, is_best=False, **more):
    tensors = {"model": {"weight": torch.full((2, 3), value)}, **more}
    return checkpoints.save(step, tensors, {"step": step}, {"seed": step}, is_best=is_best)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back(tmp_path):
    path = save(Checkpoints(tmp_path, ALONE, 2), 7, value=1.5)
    loaded = {"model": {"weight": torch.zeros(2, 3)}}
    load_tensors(path, loaded)
    assert torch.equal(loaded["model"]["weight"], torch.full((2, 3), 1.5))
    assert load_facts(path, 0) == ({"step": 7}, {"seed": 7})
    assert load_facts(path, 1) == ({"step": 7}, None)


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, ALONE, keep=2)
    assert checkpoints.last() is checkpoints.best() is None
    for step in range(1, 6):
        save(checkpoints, step, is_best=step == 2)
    kept = ["step-000000002", "step-000000004", "step-000000005"]
    assert names(tmp_path) == ["best", *kept]
    assert checkpoints.last().name == kept[-1]
    assert checkpoints.best().name == kept[0]
    save(checkpoints, 6, is_best=True)
    assert names(tmp_path) == ["best", "step-000000005", "step-000000006"]


def test_a_second_save_at_one_step_is_the_newer(tmp_path):
    checkpoints = Checkpoints(tmp_path, ALONE, keep=1)
    save(checkpoints, 9)
    save(checkpoints, 9, is_best=True)
    assert checkpoints.last() == checkpoints.best() == tmp_path / "step-000000009-evaluated"
    save(checkpoints, 10)
    assert checkpoints.last().name == "step-000000010"


@pytest.mark.parametrize("place", ["write_atomic", "fsync_folder", "state_dict_saver.save"])
def test_a_crash_while_saving_leaves_the_earlier_checkpoint_in_use(tmp_path, monkeypatch, place):
    checkpoints = Checkpoints(tmp_path, ALONE, keep=1)
    first = save(checkpoints, 1, value=1.0)

    def crash(*_, **__):
        raise InterruptedError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(f"core.train.checkpoint.{place}", crash)
        with pytest.raises(InterruptedError):
            save(checkpoints, 2, value=2.0)
    again = Checkpoints(tmp_path, ALONE, keep=1)
    assert again.last() == first
    assert names(tmp_path) == ["step-000000001"]
    loaded = {"model": {"weight": torch.zeros(2, 3)}}
    load_tensors(first, loaded)
    assert loaded["model"]["weight"].unique().item() == 1.0
    assert save(again, 2).exists()


def test_the_optimizer_comes_back_with_only_the_state_it_had(tmp_path):
    def make():
        torch.manual_seed(0)
        model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    model, optimizer = make()
    for _ in range(3):
        model["used"](torch.ones(1, 3)).sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    state = optimizer_tensors(model, optimizer)
    assert set(state) == {"used.weight", "used.bias"}
    path = save(Checkpoints(tmp_path, ALONE, 1), 3, optimizer=state)
    other, fresh = make()
    load_optimizer(path, other, fresh)
    loaded = optimizer_tensors(other, fresh)
    assert loaded.keys() == state.keys()
    for name, moments in state.items():
        assert all(torch.equal(loaded[name][key], moments[key]) for key in moments)


def test_weights_of_another_model_are_refused(tmp_path):
    path = save(Checkpoints(tmp_path, ALONE, 1), 1)
    with pytest.raises(ValueError, match=r"cannot be loaded here.*bias"):
        load_weights(path, nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"cannot be loaded here.*[Ss]ize"):
        load_weights(path, nn.Linear(5, 2, bias=False))
    with pytest.raises(ValueError, match=r"is not a checkpoint: it has no \.metadata"):
        load_weights(tmp_path, nn.Linear(3, 2))


def test_averaged_weights_are_preferred(tmp_path):
    ema = {"weight": torch.full((2, 3), 8.0)}
    path = save(Checkpoints(tmp_path, ALONE, 1), 1, value=4.0, ema=ema)
    model = nn.Linear(3, 2, bias=False)
    load_weights(path, model)
    assert model.weight.unique().item() == 8.0


class Evil:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


@pytest.mark.parametrize("dotted", [False, True])
def test_a_foreign_index_runs_no_code(tmp_path, monkeypatch, dotted):
    monkeypatch.chdir(tmp_path)
    path = save(Checkpoints(tmp_path / "checkpoints", ALONE, 1), 1)
    content = pickle.dumps(Evil())
    if dotted:  # through a module that an index does name
        name = b"torch.distributed.checkpoint.filesystem"
        head = b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x8c\x08os.mkdir\x93"
        content = head + b"\x8c\x06hacked\x85R."
    (path / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match=r"index names .*mkdir, which no checkpoint does"):
        load_weights(path, nn.Linear(3, 2))
    assert not (tmp_path / "hacked").exists()


def test_entries_that_would_be_unpickled_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, ALONE, 1)
    path = save(checkpoints, 1, settings={"lr": [1.0]})
    with pytest.raises(ValueError, match=r"'settings\.lr.*', which is no tensor"):
        load_tensors(path, {"settings": {"lr": [0.0]}})


def test_a_run_goes_on_after_a_crash_in_a_save(tmp_path, monkeypatch):
    trainer = {"epochs": 3, "checkpoint_every_steps": 4}
    unbroken = train(tmp_path / "unbroken", TinyTask(), trainer)
    renames = []
    real = checkpoint.fsync_folder

    def crash(path):
        renames.append(path.name)
        if path.name == ".part-step-000000008":
            raise InterruptedError("power cut")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "fsync_folder", crash)
        with pytest.raises(InterruptedError):
            train(tmp_path / "broken", TinyTask(), trainer)
    assert ".part-step-000000008" in names(tmp_path / "broken" / "checkpoints")
    assert train(tmp_path / "broken", TinyTask(), trainer) == unbroken
    state = tmp_path / "broken" / "checkpoints" / "best" / "state.json"
    assert json.loads(state.read_text())["step"] in (6, 12, 18)
