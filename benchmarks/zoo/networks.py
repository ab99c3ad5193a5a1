"""Networks of the zoo that no library has, and thin wrappers that give a library's model names.

Dimensions: B batch, T time, C channel, D H W voxels, N nodes, E edges, A anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Named(nn.Module):
    """A module called with keywords, of whose answer some values are kept."""

    def __init__(self, module: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.module, self.inputs, self.outputs = module, tuple(inputs), tuple(outputs)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        answer = self.module(**dict(zip(self.inputs, inputs, strict=True)))
        return {name: answer[name] for name in self.outputs}


class OfMapping(nn.Module):
    """A module whose one argument is a mapping of tensors, as the fraud kit's."""

    def __init__(self, module: nn.Module, inputs: Sequence[str], output: str) -> None:
        super().__init__()
        self.module, self.inputs, self.output = module, tuple(inputs), output

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return {self.output: self.module(dict(zip(self.inputs, inputs, strict=True)))}


class FirstOutput(nn.Module):
    """The first value of what a module returns: an LSTM without its state."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.module(x)[0]
        return first


class Detector(nn.Module):
    """A torchvision detector of one square image; boxes are shares of its side, as in `Yolo`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (found,) = self.module([image])
        return found["boxes"] / image.shape[-1], found["scores"], found["labels"]


class TwoWayLstm(nn.Module):
    """A bidirectional LSTM written by hand: exporters freeze its time axis without a word.

    Source: https://github.com/pytorch/pytorch/issues/191855.
    """

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(num_features, width, batch_first=True)
        self.backwards = nn.LSTM(num_features, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, features) -> (B, T, 2 * width)."""
        later = self.backwards(x.flip(1))[0].flip(1)
        return torch.cat([self.forwards(x)[0], later], dim=-1)


class Graph(nn.Module):
    """Two layers of one kind of PyG convolution."""

    def __init__(self, convolution: Callable[[int, int], nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        self.first = convolution(sizes[0], sizes[1])
        self.second = convolution(sizes[1], sizes[2])

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """(N, features), (2, E) -> (N, classes)."""
        out: Tensor = self.second(functional.relu(self.first(x, edges)), edges)
        return out


def block(in_width: int, out_width: int, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, SiLU, as in the YOLO family."""
    convolution = nn.Conv2d(in_width, out_width, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_width), nn.SiLU())


class Yolo(nn.Module):
    """A one-stage detector: backbone, pooling pyramid, two levels joined both ways, boxes decoded.

    The grid follows the image, so height and width stay free.
    """

    anchors: Tensor

    def __init__(self, num_classes: int = 5, width: int = 16) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(block(3, w, 2), block(w, 2 * w, 2), block(2 * w, 4 * w, 2))
        self.middle, self.deep = block(4 * w, 8 * w, 2), block(8 * w, 8 * w, 2)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.mix = block(4 * 8 * w, 8 * w)
        self.up, self.down = block(16 * w, 8 * w), block(8 * w, 8 * w, 2)
        self.heads = nn.ModuleList(
            nn.Conv2d(size, 3 * (5 + num_classes), 1) for size in (8 * w, 16 * w)
        )
        self.register_buffer("anchors", torch.tensor([[10.0, 16, 33], [30.0, 61, 59]]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> boxes (B, A, 4), scores (B, A, classes).

        A box is x y width height as shares of the image: in pixels, 1e-4 would be a demand on the
        seventh digit, which float32 does not keep.
        """
        middle = self.middle(self.stem(image))
        deep = self.deep(middle)
        deep = self.mix(torch.cat([deep, *(pool(deep) for pool in self.pools)], dim=1))
        fine = self.up(torch.cat([functional.interpolate(deep, scale_factor=2.0), middle], dim=1))
        coarse = torch.cat([self.down(fine), deep], dim=1)
        levels = zip(self.heads, (fine, coarse), self.anchors, (16, 32), strict=True)
        decoded = [decode(head(x), anchors, stride) for head, x, anchors, stride in levels]
        boxes, scores = zip(*decoded, strict=True)
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


def decode(raw: Tensor, anchors: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """(B, 3 * (5 + classes), H, W) of one level -> boxes (B, 3 H W, 4), scores."""
    B, _, H, W = raw.shape
    value = raw.view(B, 3, -1, H, W).permute(0, 1, 3, 4, 2).sigmoid()
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    x = (value[..., 0] * 2 - 0.5 + columns) / W
    y = (value[..., 1] * 2 - 0.5 + rows) / H
    size = (value[..., 2:4] * 2) ** 2 * (anchors / stride).view(3, 1, 1, 1)
    boxes = torch.stack([x, y, size[..., 0] / W, size[..., 1] / H], dim=-1).reshape(B, -1, 4)
    scores = value[..., 5:] * value[..., 4:5]
    return boxes, scores.reshape(B, 3 * H * W, scores.shape[-1])


class UNet3d(nn.Module):
    """A 3D U-Net of three levels: instance normalisation, transposed convolutions upwards."""

    def __init__(self, num_classes: int = 3, width: int = 8) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        pairs = zip([1, *widths], widths, strict=False)
        self.downs = nn.ModuleList(self.level(a, b) for a, b in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose3d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.joins = nn.ModuleList(self.level(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv3d(width, num_classes, 1)

    @staticmethod
    def level(in_width: int, out_width: int) -> nn.Sequential:
        convolutions = (
            nn.Conv3d(in_width, out_width, 3, 1, 1),
            nn.Conv3d(out_width, out_width, 3, 1, 1),
        )
        parts = [
            (c, nn.InstanceNorm3d(out_width, affine=True), nn.LeakyReLU(0.01)) for c in convolutions
        ]
        return nn.Sequential(*parts[0], *parts[1])

    def forward(self, volume: Tensor) -> Tensor:
        """(B, 1, D, H, W) -> (B, classes, D, H, W)."""
        kept = []
        for down in self.downs:
            volume = down(functional.max_pool3d(volume, 2) if kept else volume)
            kept.append(volume)
        for up, join, same_size in zip(self.ups, self.joins, kept[-2::-1], strict=True):
            volume = join(torch.cat([up(volume), same_size], dim=1))
        out: Tensor = self.head(volume)
        return out
