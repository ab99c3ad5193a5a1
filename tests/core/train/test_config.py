import subprocess
import sys

import pytest

from core.train.config import OptimConfig, TrainConfig, TrainerConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TrainerConfig(precision="fp8"),
            "trainer.precision='fp8' is not one of fp32, bf16, fp16, auto; set trainer.precision",
        ),
        (lambda: TrainerConfig(parallel="tp"), "trainer.parallel='tp' is not one of ddp, fsdp"),
        (lambda: TrainerConfig(epochs=0), "trainer.epochs=0 is not 1 or more"),
        (lambda: TrainerConfig(max_steps=0), "trainer.max_steps=0 is not 1 or more"),
        (lambda: TrainerConfig(metric=None, patience=3), "trainer.patience=3 has no metric"),
        (lambda: OptimConfig(name="lion"), "optim.name='lion' is not one of adamw, sgd"),
        (lambda: OptimConfig(lr=0), "optim.lr=0 is not positive"),
        (lambda: OptimConfig(beta2=1.0), r"optim.beta2=1.0 is not in \[0, 1\)"),
        (lambda: OptimConfig(ema_decay=1.0), r"optim.ema_decay=1.0 is not in \(0, 1\)"),
        (lambda: OptimConfig(clip_norm=0.0), "optim.clip_norm=0.0 is not positive"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_defaults_are_valid_and_separate():
    first, second = TrainConfig(), TrainConfig()
    assert first == second
    assert first.optim is not second.optim


def test_config_does_not_import_torch():
    code = (
        "import sys, core.train.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
