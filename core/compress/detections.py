"""Lists of found boxes, as torchvision's detectors give them, as dense maps of logits.

A detector's list cannot be compared number by number; where its boxes lie and how sure it is can:

    def read(found):
        return {"heat": heat_of_boxes(found, (64, 64), stride=4)}

    distill(task, detector, cfg, read_teacher=read)

Dimensions: K boxes, N samples, C classes, H W ... of the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# A box's standard deviation: its sides lie three of them from its centre.
SIDES_PER_SIGMA = 6.0
LEAST_SIGMA = 0.5  # of the map's positions
LEAST_PROBABILITY = 1e-4


def heat_of_boxes(
    found: Sequence[Mapping[str, Tensor]],
    shape: tuple[int, ...],
    stride: float,
    *,
    num_classes: int = 1,
    first_label: int = 1,
) -> Tensor:
    """A peak at each box's centre, as high as its score; the highest where several overlap.

    Args:
        found: of each sample boxes (K, 2 n), the lower corner then the upper one, each in the order
            (x, y[, z]) of the map's axes from the last to the first; scores (K,) in [0, 1]; labels
            (K,) integers.
        shape: of the map.
        stride: the inputs' positions for each of the map's.
        num_classes: C.
        first_label: the label of the first class; others outside of C are left out.
    Returns:
        (N, C, *shape) float32 logits.
    Raises:
        ValueError: boxes do not have two corners of the map's number of axes.
    """
    dimensions = len(shape)
    heat = torch.full((len(found), num_classes, *shape), LEAST_PROBABILITY)
    axes = [torch.arange(size, dtype=torch.float32) + 0.5 for size in shape]
    for sample, one in enumerate(found):
        boxes = one["boxes"].detach().float().cpu() / stride
        if boxes.ndim != 2 or boxes.shape[1] != 2 * dimensions:
            raise ValueError(
                f"boxes of shape {tuple(boxes.shape)} do not have two corners on a map of shape "
                f"{shape}; give (K, {2 * dimensions})"
            )
        scores, labels = one["scores"].tolist(), one["labels"].tolist()
        for box, score, label in zip(boxes, scores, labels, strict=True):
            if not 0 <= label - first_label < num_classes:
                continue
            low, high = box[:dimensions].flip(0), box[dimensions:].flip(0)
            sigma = ((high - low) / SIDES_PER_SIGMA).clamp_min(LEAST_SIGMA)
            centre = (low + high) / 2
            exponent = torch.zeros(())
            for number, axis in enumerate(axes):
                exponent = exponent.unsqueeze(-1) + ((axis - centre[number]) / sigma[number]) ** 2
            peak = heat[sample, label - first_label]
            torch.maximum(peak, score * torch.exp(-exponent / 2), out=peak)
    return torch.logit(heat.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)).to(
        found[0]["boxes"].device if found else None
    )
