import json
import math
import shutil

import pytest
import torch
from torch import nn

from core.train.precision import Candidate, autocast, fastest
from core.train.randomness import deterministic_kernels
from core.train.trainer import Trainer
from tests.core.train.tiny import TinyTask, settings


def candidate(precision, step_ms, loss):
    return Candidate(precision, is_compiled=False, step_ms=step_ms, loss=loss)


def test_the_fastest_that_keeps_the_loss_is_taken():
    reference = candidate("fp32", 10.0, 2.0)
    close, off = candidate("bf16", 6.0, 2.019), candidate("fp16", 3.0, 2.021)
    assert fastest([reference, close, off], 0.01) == close
    assert fastest([reference, candidate("bf16", 11.0, 2.0)], 0.01) == reference
    assert fastest([reference, candidate("fp16", 1.0, math.nan)], 0.01) == reference
    broken = Candidate("fp16", is_compiled=False, failure="no kernel")
    assert fastest([reference, broken], 0.01) == reference
    assert str(broken) == "fp16: cannot run (no kernel)"
    with pytest.raises(ValueError, match="the step does not run: fp16"):
        fastest([broken, reference], 0.01)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_runs_matrix_products_in_the_type(precision, dtype):
    with autocast(torch.device("cpu"), precision)():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


class NoLowPrecision(TinyTask):
    def step(self, batch):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no kernel for this type\nand a long story")
        return super().step(batch)


def test_a_precision_that_cannot_run_is_reported_and_not_taken(tmp_path):
    cfg = settings({"epochs": 1, "precision": "auto", "measure_steps": 2})
    trainer = Trainer(NoLowPrecision(), cfg, run_dir=tmp_path)
    trainer.fit()
    assert trainer.candidate.precision == "fp32"
    text = (tmp_path / "measured.json").read_text()
    assert text.count("RuntimeError: no kernel for this type") == 2
    assert "long story" not in text


@pytest.mark.slow  # half a minute of compilation
def test_compilation_is_measured_and_changes_no_parameter_names(tmp_path):
    cfg = settings({"epochs": 2, "compile": "auto", "measure_steps": 3})
    task = TinyTask()
    trainer = Trainer(task, cfg, run_dir=tmp_path)
    trainer.fit()
    eager, compiled = json.loads((tmp_path / "measured.json").read_text())
    assert (eager["is_compiled"], compiled["is_compiled"]) == (False, True)
    if shutil.which("c++") is None:
        assert compiled["failure"]
        assert not trainer.candidate.is_compiled
    else:
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-4)
    assert list(trainer.model.state_dict()) == list(TinyTask().model.state_dict())


def test_deterministic_kernels_are_asked_for_inside_only():
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_kernels(enabled=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_kernels(enabled=False):
        assert not torch.are_deterministic_algorithms_enabled()
