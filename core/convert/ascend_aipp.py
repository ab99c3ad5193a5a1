"""AIPP: the image unit of Ascend chips normalises uint8 pictures in front of the model.

It computes (pixel - mean - min) * var_reci, where mean is a whole number of 0-255 and min and
var_reci are float16. Limits as in docs/zh/user_guides/atc_tools/AIPP of github.com/hicann/ge,
commit ffdcbc9f of 2026-08-21.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.convert.source import Source

CHANNELS = {"RGB888_U8": 3, "YUV400_U8": 1}
WIDTH_RANGE = (2, 4096)
HEIGHT_RANGE = (1, 4096)
SETTINGS = {"format", "mean", "std", "swap_red_and_blue"}


def aipp_config(source: Source, images: Mapping[str, Mapping[str, Any]]) -> str:
    """The configuration file for `--insert_op_conf`: one block for each image input.

    Args:
        source: its inputs of the given names are float, of fixed height and width, in NCHW.
        images: input name -> `mean` and `std` for each channel, in steps of 0-255 (the model sees
            (pixel - mean) / std); `format`, RGB888_U8 (default) or YUV400_U8; `swap_red_and_blue`
            for pictures in BGR.
    Raises:
        ValueError: an unknown input or setting, or a shape, mean or std that AIPP cannot do.
    """
    names = list(source.example)
    blocks = []
    for name in sorted(images, key=lambda name: names.index(name) if name in names else -1):
        if name not in names:
            raise ValueError(f"aipp input {name!r} is not one of {', '.join(names)}")
        blocks.append(_block(source, name, names.index(name), images[name]))
    return "".join(blocks)


def _block(source: Source, name: str, rank: int, settings: Mapping[str, Any]) -> str:
    if unknown := set(settings) - SETTINGS:
        raise ValueError(f"aipp.{name} has {sorted(unknown)}, not among {sorted(SETTINGS)}")
    kind = settings.get("format", "RGB888_U8")
    if kind not in CHANNELS:
        raise ValueError(f"aipp.{name}.format={kind!r} is not one of {', '.join(CHANNELS)}")
    example, free = source.example[name], source.axes.get(name, {})
    if not example.is_floating_point() or example.ndim != 4 or set(free) - {0}:
        raise ValueError(
            f"aipp.{name} needs a float input (batch, channels, height, width) with only the "
            f"batch free; it has {example.dtype!s} {tuple(example.shape)}"
        )
    _, channels, height, width = example.shape
    for what, size, (low, high) in (
        ("channels", channels, (CHANNELS[kind], CHANNELS[kind])),
        ("height", height, HEIGHT_RANGE),
        ("width", width, WIDTH_RANGE),
    ):
        if not low <= size <= high:
            raise ValueError(f"aipp.{name} has {what}={size}, {kind} needs {low} to {high}")
    lines = [
        "aipp_mode: static",
        f"related_input_rank: {rank}",
        f"input_format: {kind}",
        f"src_image_size_w: {width}",
        f"src_image_size_h: {height}",
        "crop: false",
        "csc_switch: false",
        f"rbuv_swap_switch: {'true' if settings.get('swap_red_and_blue') else 'false'}",
    ]
    means = _values(name, "mean", settings.get("mean", [0] * channels), channels)
    stds = _values(name, "std", settings.get("std", [1] * channels), channels)
    for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
        if not 0 <= mean <= 255 or std <= 0:
            raise ValueError(
                f"aipp.{name} channel {channel} has mean={mean:g}, std={std:g}; the mean is in "
                f"0-255 and std above 0, in steps of the pixels"
            )
        whole = int(mean)
        lines += [
            f"mean_chn_{channel}: {whole}",
            f"min_chn_{channel}: {_float16(mean - whole)}",
            f"var_reci_chn_{channel}: {_float16(1 / std)}",
        ]
    body = "".join(f"    {line}\n" for line in lines)
    return f"aipp_op {{\n{body}}}\n"


def _values(name: str, what: str, values: Sequence[float], channels: int) -> list[float]:
    if len(values) != channels:
        raise ValueError(f"aipp.{name}.{what} has {len(values)} values for {channels} channels")
    return [float(value) for value in values]


def _float16(value: float) -> str:
    """The nearest float16, spelt so that it reads back as itself."""
    return np.format_float_positional(np.float16(value), trim="0")
