"""A run of seconds: few and small cases, small samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from kits.medical.config import MedicalTrainConfig
from kits.medical.data.config import PhantomData
from kits.medical.sampling_config import LEAST_DEEPEST

ConfigT = TypeVar("ConfigT", bound=MedicalTrainConfig)

NUM_CASES = 2
WARMUP_STEPS = 2  # at most: a run of a few steps ends before a long warm-up does
PIXEL_MM, SLICE_MM = 3.0, 1.5
PHANTOM_SHAPE = (24, 64, 96)


def shrink(cfg: ConfigT) -> ConfigT:
    """The configuration of a smoke run; any other one as it is."""
    if not cfg.trainer.smoke:
        return cfg
    size = max(16, LEAST_DEEPEST * cfg.model.multiple)
    sampling = replace(
        cfg.sampling,
        patch=[min(size, wanted) for wanted in cfg.sampling.patch],
        batch_size=2,
        samples_per_epoch=40,
        lung_crops=2,
        max_validation=8,
    )
    data = cfg.data
    if isinstance(data, PhantomData):
        data = replace(
            data, num_train=NUM_CASES, num_validation=1, num_test=1,
            pixel_mm=PIXEL_MM, slice_mm=SLICE_MM, shape=PHANTOM_SHAPE,
        )  # fmt: skip
    optim = replace(cfg.optim, warmup_steps=min(WARMUP_STEPS, cfg.optim.warmup_steps))
    return replace(cfg, sampling=sampling, data=data, optim=optim)
