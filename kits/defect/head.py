"""What the end of a graph says about boxes: a map for each stride, and how boxes are read from it.

Both heads give (N, A, 5 + K or 4 + K, H, W) for each stride: four numbers of the box, objectness
where there is one, and K classes, for A shapes at each cell.

Dimensions: N batch, A shapes of a cell, K classes, H rows, W columns of a map, B boxes of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# The share of cells that an untrained head calls a defect.
PRIOR = 0.01
SMALLEST_CELLS, LARGEST_CELLS = 1 / 8, 128.0  # sides of boxes that the light head can say


@dataclass(frozen=True)
class Predictions:
    """All boxes of a batch, in the order of the maps: strides, then shapes, rows, columns."""

    boxes: Tensor  # (N, B, 4) corners x1 y1 x2 y2 in pixels of the input
    classes: Tensor  # (N, B, K) logits
    objectness: Tensor | None  # (N, B) logits
    centres: Tensor  # (B, 2) x y of each cell's middle in pixels
    strides: Tensor  # (B,)

    def scores(self) -> Tensor:
        """(N, B, K) probabilities."""
        scores = self.classes.sigmoid()
        return scores if self.objectness is None else scores * self.objectness.sigmoid()[..., None]


class Head(nn.Module):
    """Maps of features to maps of predictions, and those to boxes."""

    has_objectness: bool
    shapes: int

    def __init__(self, strides: Sequence[int], classes: int) -> None:
        super().__init__()
        self.strides, self.classes = tuple(strides), classes

    @property
    def numbers(self) -> int:
        """Of each shape of a cell."""
        return 4 + self.has_objectness + self.classes

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """(N, A, numbers, H, W) for each stride."""
        raise NotImplementedError

    def boxes(self, level: int, numbers: Tensor, centres: Tensor) -> Tensor:
        """(N, A, 4, H, W) raw and (2, H, W) middles of cells in pixels -> corners in pixels."""
        raise NotImplementedError

    def predictions(self, maps: Sequence[Tensor]) -> Predictions:
        """Boxes in pixels, and logits, in float32."""
        boxes, rest, centres, strides = [], [], [], []
        for level, (stride, found) in enumerate(zip(self.strides, maps, strict=True)):
            found = found.float()
            middle = cell_centres(found, stride)
            corners = self.boxes(level, found[:, :, :4], middle)
            boxes.append(corners.permute(0, 1, 3, 4, 2).flatten(1, 3))
            rest.append(found[:, :, 4:].permute(0, 1, 3, 4, 2).flatten(1, 3))
            flat = middle.flatten(1).T.repeat(self.shapes, 1)
            centres.append(flat)
            strides.append(torch.full_like(flat[:, 0], stride))
        numbers = torch.cat(rest, 1)
        first = int(self.has_objectness)
        return Predictions(
            torch.cat(boxes, 1),
            numbers[..., first:],
            numbers[..., 0] if self.has_objectness else None,
            torch.cat(centres),
            torch.cat(strides),
        )

    def decode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """`boxes` (N, B, 4) corners in pixels, `scores` (N, B, K): what is exported."""
        found = self.predictions(maps)
        return {"boxes": found.boxes, "scores": found.scores()}

    def fuse(self) -> None:
        """Whatever a head can put into its convolutions."""


class LightHead(Head):
    """One 1x1 convolution for each stride: a box relative to its cell, and classes.

    The stock heads of its time spend a quarter (YOLOv7) to a half (tiny) of the whole network's
    operations on towers of convolutions; here the graph's last RepConv is all there is.
    """

    has_objectness, shapes = False, 1

    def __init__(self, inside: Sequence[int], strides: Sequence[int], classes: int) -> None:
        super().__init__(strides, classes)
        self.maps = nn.ModuleList(nn.Conv2d(width, 4 + classes, 1) for width in inside)
        for conv in self.maps:
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
            # A box of four cells, which is what each stride is there for.
            nn.init.constant_(conv.bias[2:4], math.log(4.0))
            nn.init.constant_(conv.bias[4:], math.log(PRIOR / (1 - PRIOR)))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps of predictions."""
        return [conv(x)[:, None] for conv, x in zip(self.maps, features, strict=True)]

    def boxes(self, level: int, numbers: Tensor, centres: Tensor) -> Tensor:
        """Corners in pixels."""
        stride = self.strides[level]
        middle = centres + numbers[:, :, :2] * stride
        sides = numbers[:, :, 2:].clamp(math.log(SMALLEST_CELLS), math.log(LARGEST_CELLS)).exp()
        half = sides * (stride / 2)
        return torch.cat([middle - half, middle + half], 2)


class AnchorHead(Head):
    """The published head: three shapes for each cell, objectness, learned offsets and factors."""

    has_objectness = True

    def __init__(
        self,
        inside: Sequence[int],
        strides: Sequence[int],
        classes: int,
        *,
        anchors_px: Sequence[Sequence[Sequence[float]]],
    ) -> None:
        super().__init__(strides, classes)
        self.shapes = len(anchors_px[0])
        self.anchors_px: Tensor
        self.register_buffer(
            "anchors_px", torch.tensor(anchors_px, dtype=torch.float32), persistent=False
        )
        wide = self.shapes * self.numbers
        self.maps = nn.ModuleList(nn.Conv2d(width, wide, 1) for width in inside)
        self.offsets = nn.ParameterList(
            nn.Parameter(torch.randn(1, width, 1, 1) * 0.02) for width in inside
        )
        self.factors = nn.ParameterList(
            nn.Parameter(1 + torch.randn(1, wide, 1, 1) * 0.02) for _ in inside
        )
        self.is_fused = False
        for conv, stride in zip(self.maps, self.strides, strict=True):
            bias = conv.bias.detach().view(self.shapes, -1)
            # Eight objects in an image of 640 px, each of one class.
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (max(classes, 2) - 0.99))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps of predictions."""
        maps = []
        for level, x in enumerate(features):
            if self.is_fused:
                found = self.maps[level](x)
            else:
                found = self.maps[level](x + self.offsets[level]) * self.factors[level]
            maps.append(found.unflatten(1, (self.shapes, self.numbers)))
        return maps

    def boxes(self, level: int, numbers: Tensor, centres: Tensor) -> Tensor:
        """Corners in pixels."""
        stride = self.strides[level]
        shares = numbers.sigmoid()
        middle = centres + (shares[:, :, :2] * 2 - 1) * stride
        anchors = self.anchors_px[level].view(1, self.shapes, 2, 1, 1)
        half = (shares[:, :, 2:] * 2) ** 2 * anchors / 2
        return torch.cat([middle - half, middle + half], 2)

    @torch.no_grad()
    def fuse(self) -> None:
        """Put offsets and factors into the convolutions."""
        if self.is_fused:
            return
        for conv, offset, factor in zip(self.maps, self.offsets, self.factors, strict=True):
            conv.bias += conv.weight[:, :, 0, 0] @ offset.view(-1)
            conv.weight *= factor.view(-1, 1, 1, 1)
            conv.bias *= factor.view(-1)
        self.offsets, self.factors = nn.ParameterList(), nn.ParameterList()
        self.is_fused = True


HEADS: dict[str, type[Head]] = {"light": LightHead, "anchors": AnchorHead}


def cell_centres(maps: Tensor, stride: int) -> Tensor:
    """(..., H, W) -> (2, H, W): x and y of each cell's middle, in pixels of the input."""
    rows, columns = maps.shape[-2:]
    x = (torch.arange(columns, device=maps.device, dtype=torch.float32) + 0.5) * stride
    y = (torch.arange(rows, device=maps.device, dtype=torch.float32) + 0.5) * stride
    return torch.stack([x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)])


def dense(head: Head, maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """What each cell says, whatever the kind of head: for a student beside its teacher.

    Returns:
        for each stride S `heat_S` (N, K, H, W), logits of the best shape's classes; `seen_S`
        (N, 1, H, W), that of the best class; and `box_S` (N, 4, H, W), its distances from the
        cell's middle to left, top, right, bottom in strides.
    """
    result = {}
    for level, (stride, found) in enumerate(zip(head.strides, maps, strict=True)):
        found = found.float()
        centres = cell_centres(found, stride)
        corners = head.boxes(level, found[:, :, :4], centres)
        scores = found[:, :, 4 + head.has_objectness :].sigmoid()
        if head.has_objectness:
            scores = scores * found[:, :, 4:5].sigmoid()
        best = scores.amax(2, keepdim=True).argmax(1, keepdim=True)
        chosen = scores.gather(1, best.expand(-1, -1, scores.shape[2], -1, -1))[:, 0]
        corners = corners.gather(1, best.expand(-1, -1, 4, -1, -1))[:, 0]
        sides = torch.cat([centres - corners[:, :2], corners[:, 2:] - centres], 1) / stride
        result[f"heat_{stride}"] = torch.logit(chosen, eps=1e-4)
        result[f"seen_{stride}"] = result[f"heat_{stride}"].amax(1, keepdim=True)
        result[f"box_{stride}"] = sides
    return result
