"""A torch module behind the kit's network contract: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from kits.defect.graph import OUTPUT_NAMES


class ArrayNetwork:
    """A module that takes and gives arrays: what everything that detects is called with."""

    def __init__(self, module: nn.Module, *, is_bf16: bool = False) -> None:
        self.module, self.is_bf16 = module, is_bf16

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{"image": (N, P, H, W) float32 in 0..1} -> boxes and scores in float32."""
        device = next(self.module.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(inputs["image"], np.float32)).to(device)
        image = image.contiguous(memory_format=torch.channels_last)
        was_training = self.module.training
        self.module.eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=self.is_bf16):
            outputs = self.module(image)
        self.module.train(was_training)
        return {name: outputs[name].float().cpu().numpy() for name in OUTPUT_NAMES}
