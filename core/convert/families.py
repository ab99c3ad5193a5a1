"""What the inputs of known model families look like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.convert.architectures import Architecture, image_size_px
from core.convert.source import Axis, Draw, Source

BATCH = Axis("batch", 1, 8)
NUM_FRAMES = 16
# Longer texts follow the same graph; these are quick to compare.
LONGEST_TEXT_TOKENS = 64
FIRST_WORD = 5  # lower ids are padding and other marks


@dataclass(frozen=True)
class Inputs:
    """Example inputs and the axes whose sizes may change."""

    example: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, Axis]]
    draw: Draw | None = None


def image_inputs(architecture: Architecture) -> Inputs:
    """Images, or clips of frames, of the size the model is evaluated with; the batch is free."""
    size = image_size_px(architecture)
    frames = (NUM_FRAMES,) if architecture.task == "video" else ()
    shape = (1, 3, *frames, size, size)
    return Inputs({"image": torch.randn(shape)}, {"image": {0: BATCH}})


class Detector(nn.Module):
    """A torchvision detector for one image: a tensor in, the found objects' tensors out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Boxes, labels, scores (and masks or keypoints) for a (1, 3, H, W) image."""
        found: dict[str, Tensor] = self.model([image[0]])[0]
        return found


def detector_inputs(model: nn.Module) -> tuple[nn.Module, Inputs]:
    """A detector and one 320 px image: its list of images has no batch axis."""
    return Detector(model).eval(), Inputs({"image": torch.rand(1, 3, 320, 320)}, {})


class ByKeyword(nn.Module):
    """A transformers model that takes its inputs by position and gives a dict."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """All tensors of the model's output, by name."""
        outputs = self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=True)
        return {name: value for name, value in outputs.items() if isinstance(value, Tensor)}


def load_transformers(path: Path) -> Source:
    """A model folder of transformers: config.json and model.safetensors; no code of its own.

    Raises:
        ValueError: pickled weights, code in the folder, an unknown class, or unknown inputs.
    """
    import transformers

    config = json.loads((path / "config.json").read_text())
    names = config.get("architectures") or []
    if not (path / "model.safetensors").is_file():
        raise ValueError(
            f"input_path={path.name!r} has no model.safetensors; save it again with "
            f"model.save_pretrained(folder), pickled weights are not read"
        )
    if len(names) != 1 or "auto_map" in config or not hasattr(transformers, names[0]):
        raise ValueError(
            f"config.json has architectures={names}, which is no class of transformers "
            f"{transformers.__version__}; code that comes with a model is not run"
        )
    model = getattr(transformers, names[0]).from_pretrained(
        path, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    model.config.use_cache = False
    inputs = _transformers_inputs(model)
    module = ByKeyword(model, tuple(inputs.example)).eval().requires_grad_(requires_grad=False)
    with torch.no_grad():
        outputs = module(*inputs.example.values())
    return Source(
        name=path.name,
        origin=f"transformers {names[0]}, safetensors",
        module=module,
        example=inputs.example,
        output_names=tuple(outputs),
        axes=inputs.axes,
    )


def _transformers_inputs(model: Any) -> Inputs:
    """Token ids and pixels, as the configuration says which of them there are."""
    config = model.config
    text = getattr(config, "text_config", config)
    vision = getattr(config, "vision_config", config)
    example: dict[str, Tensor] = {}
    axes: dict[str, dict[int, Axis]] = {}
    if hasattr(text, "vocab_size"):
        longest = getattr(text, "max_position_embeddings", LONGEST_TEXT_TOKENS)
        sequence = Axis("sequence", 1, min(LONGEST_TEXT_TOKENS, longest - FIRST_WORD))
        shape = (1, sequence.high // 2)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(FIRST_WORD, text.vocab_size, shape, generator=generator)
        example |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        axes |= {name: {0: BATCH, 1: sequence} for name in example}
        if getattr(config, "is_encoder_decoder", False):
            example["decoder_input_ids"] = ids.clone()
            axes["decoder_input_ids"] = {0: BATCH, 1: sequence}
    if hasattr(vision, "image_size"):
        sizes = vision.image_size
        height, width = sizes if isinstance(sizes, list | tuple) else (sizes, sizes)
        channels = getattr(vision, "num_channels", 3)
        example["pixel_values"] = torch.randn(1, channels, height, width)
        axes["pixel_values"] = {0: BATCH}
    if not example:
        raise ValueError(
            f"the inputs of {type(model).__name__} are not known; export it with torch.export "
            f"and convert the .pt2 file"
        )
    return Inputs(example, axes)
