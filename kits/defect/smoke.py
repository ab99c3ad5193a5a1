"""A run of seconds: few and small images, small samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from kits.defect.config import DefectTrainConfig
from kits.defect.data.config import RenderedData

ConfigT = TypeVar("ConfigT", bound=DefectTrainConfig)

NUM_IMAGES, SIDE_PX, SAMPLE_PX = 8, 160, 96


def shrink(cfg: ConfigT) -> ConfigT:
    """The configuration of a smoke run; any other one as it is."""
    if not cfg.trainer.smoke:
        return cfg
    sampling = replace(
        cfg.sampling, size_px=SAMPLE_PX, batch_size=4, samples_per_epoch=80, max_validation=4
    )
    data = cfg.data
    if isinstance(data, RenderedData):
        data = replace(
            data, num_train=NUM_IMAGES, num_validation=4, num_test=8,
            width_px=SIDE_PX, height_px=SIDE_PX, clean=min(data.clean, 0.25),
        )  # fmt: skip
    optim = replace(cfg.optim, warmup_steps=min(cfg.optim.warmup_steps, 2))
    return replace(cfg, sampling=sampling, data=data, optim=optim)
