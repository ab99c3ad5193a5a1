"""What the graphs of the zoo are made of.

Each layer knows its channels and by how much it shrinks an image (`stride`; below 1 it grows).
Written from the papers (YOLOv7 arXiv 2207.02696, RepVGG 2101.03697, CBAM 1807.06521, SimAM ICML
2021, BiFPN 1911.09070) and the MIT-licensed re-release of YOLOv7 by its authors.

Dimensions: N batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

NORM_EPS, NORM_MOMENTUM = 1e-3, 0.1
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": lambda: nn.SiLU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
    "none": nn.Identity,
}


@dataclass(frozen=True)
class Style:
    """What all layers of a graph share."""

    activation: str
    attention: str


class Layer(nn.Module):
    """A node of a graph."""

    channels: int  # that it gives
    stride: float = 1.0


class Conv(Layer):
    """Convolution, batch norm, activation."""

    def __init__(
        self,
        inside: Sequence[int],
        style: Style,
        *,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride
        self.conv: nn.Module = nn.Conv2d(
            inside[0], channels, kernel, stride, padding=kernel // 2, bias=False
        )
        self.norm: nn.Module = _norm(channels)
        self.activation = ACTIVATIONS[activation or style.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H / stride, W / stride)."""
        result: Tensor = self.activation(self.norm(self.conv(x)))
        return result

    def fuse(self) -> None:
        """Put the batch norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class RepConv(Layer):
    """A 3x3 and a 1x1 branch, and in place an identity, that become one 3x3 convolution.

    Planned (YOLOv7): no identity where a sum or concatenation follows, because it would take away
    the diversity of their gradients.
    """

    def __init__(
        self, inside: Sequence[int], style: Style, *, channels: int, identity: bool = False
    ) -> None:
        super().__init__()
        self.channels = channels
        self.wide: nn.Module = nn.Conv2d(inside[0], channels, 3, padding=1, bias=False)
        self.wide_norm: nn.Module = _norm(channels)
        self.point: nn.Module | None = nn.Conv2d(inside[0], channels, 1, bias=False)
        self.point_norm: nn.Module | None = _norm(channels)
        has_identity = identity and inside[0] == channels
        self.identity: nn.Module | None = _norm(channels) if has_identity else None
        self.activation = ACTIVATIONS[style.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H, W)."""
        total = self.wide_norm(self.wide(x))
        if self.point is not None and self.point_norm is not None:
            total = total + self.point_norm(self.point(x))
        if self.identity is not None:
            total = total + self.identity(x)
        result: Tensor = self.activation(total)
        return result

    @torch.no_grad()
    def fuse(self) -> None:
        """Add the branches up into the 3x3 convolution."""
        if self.point is None:
            return
        wide = fuse_conv_bn_eval(self.wide, self.wide_norm)
        point = fuse_conv_bn_eval(self.point, self.point_norm)
        wide.weight[:, :, 1:2, 1:2] += point.weight
        wide.bias += point.bias
        if self.identity is not None:
            same = nn.Conv2d(self.channels, self.channels, 1, bias=False)
            nn.init.dirac_(same.weight)
            same = fuse_conv_bn_eval(same.to(wide.weight).eval(), self.identity)
            wide.weight[:, :, 1:2, 1:2] += same.weight
            wide.bias += same.bias
        self.wide, self.wide_norm = wide, nn.Identity()
        self.point = self.point_norm = self.identity = None


class Elan(Layer):
    """Two 1x1 branches, a chain of 3x3 behind the second; taps of the chain are concatenated."""

    def __init__(
        self,
        inside: Sequence[int],
        style: Style,
        *,
        branch: int,
        hidden: int,
        depth: int,
        channels: int,
        tap_every: int = 1,
    ) -> None:
        super().__init__()
        self.channels, self.tap_every = channels, tap_every
        self.past = Conv(inside, style, channels=branch)
        self.start = Conv(inside, style, channels=branch)
        widths = [branch, *[hidden] * depth]
        self.chain = nn.ModuleList(
            Conv([widths[k]], style, channels=hidden, kernel=3) for k in range(depth)
        )
        taps = sum(hidden for k in range(depth) if self._is_tapped(k))
        self.join = Conv([2 * branch + taps], style, channels=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H, W)."""
        parts = [self.past(x), self.start(x)]
        inner = parts[1]
        for k, conv in enumerate(self.chain):
            inner = conv(inner)
            if self._is_tapped(k):
                parts.append(inner)
        result: Tensor = self.join(torch.cat(parts[::-1], 1))
        return result

    def _is_tapped(self, k: int) -> bool:
        return (k + 1) % self.tap_every == 0


class Downsample(Layer):
    """Half the size twice, by maximum and by a convolution, concatenated with what else comes."""

    stride = 2.0

    def __init__(self, inside: Sequence[int], style: Style, *, channels: int) -> None:
        """`inside` may name further inputs of the smaller size."""
        super().__init__()
        self.channels = 2 * channels + sum(inside[1:])
        self.pool = nn.MaxPool2d(2, 2)
        self.pooled = Conv(inside, style, channels=channels)
        self.narrow = Conv(inside, style, channels=channels)
        self.halved = Conv([channels], style, channels=channels, kernel=3, stride=2)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """(N, C, H, W) and others of half the size -> (N, channels, H / 2, W / 2)."""
        parts = [self.halved(self.narrow(x)), self.pooled(self.pool(x))]
        return torch.cat([*parts, *others], 1)


class Pool(Layer):
    """Half the size by maximum."""

    stride = 2.0

    def __init__(self, inside: Sequence[int], _style: Style) -> None:
        super().__init__()
        self.channels = inside[0]
        self.pool = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / 2, W / 2)."""
        result: Tensor = self.pool(x)
        return result


class Pack(Layer):
    """Each block of pixels becomes channels: nothing is lost, and what follows is small."""

    def __init__(self, inside: Sequence[int], _style: Style, *, size: int = 2) -> None:
        super().__init__()
        self.channels, self.stride = inside[0] * size**2, size
        self.pack = nn.PixelUnshuffle(size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C size², H / size, W / size)."""
        result: Tensor = self.pack(x)
        return result


class Upsample(Layer):
    """Twice the size, each position repeated."""

    stride = 0.5

    def __init__(self, inside: Sequence[int], _style: Style) -> None:
        super().__init__()
        self.channels = inside[0]
        self.rise = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2 H, 2 W)."""
        result: Tensor = self.rise(x)
        return result


class Concat(Layer):
    """Channels of several layers of one size."""

    def __init__(self, inside: Sequence[int], _style: Style) -> None:
        super().__init__()
        self.channels = sum(inside)

    def forward(self, *parts: Tensor) -> Tensor:
        """(N, C1, H, W), (N, C2, H, W) ... -> (N, C1 + C2 ..., H, W)."""
        return torch.cat(parts, 1)


class Fuse(Layer):
    """A weighted mean of layers of one shape; weights are learned, never negative (BiFPN)."""

    def __init__(self, inside: Sequence[int], _style: Style) -> None:
        super().__init__()
        if len(set(inside)) != 1:
            raise ValueError(f"fuse: inputs have {list(inside)} channels; give layers of one width")
        self.channels = inside[0]
        self.weight = nn.Parameter(torch.ones(len(inside)))

    def forward(self, *parts: Tensor) -> Tensor:
        """(N, C, H, W) each -> (N, C, H, W)."""
        share = torch.relu(self.weight)
        share = share / (share.sum() + 1e-4)
        total = parts[0] * share[0]
        for k in range(1, len(parts)):
            total = total + parts[k] * share[k]
        return total


class SppCsp(Layer):
    """Maxima over windows of several sizes between convolutions, and a branch past them."""

    def __init__(
        self,
        inside: Sequence[int],
        style: Style,
        *,
        channels: int,
        windows: Sequence[int] = (5, 9, 13),
        light: bool = False,
    ) -> None:
        """`light`: without the 3x3 convolutions and the 1x1 one after them, as in YOLOv7-tiny."""
        super().__init__()
        self.channels = channels

        def conv(width: int, kernel: int = 1) -> Conv:
            return Conv([width], style, channels=channels, kernel=kernel)

        self.past = conv(inside[0])
        self.before = nn.Sequential(
            conv(inside[0]), *([] if light else [conv(channels, 3), conv(channels)])
        )
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in windows)
        self.after = nn.Sequential(
            conv(channels * (len(windows) + 1)), *([] if light else [conv(channels, 3)])
        )
        self.join = conv(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H, W)."""
        inner = self.before(x)
        inner = self.after(torch.cat([inner, *(pool(inner) for pool in self.pools)], 1))
        result: Tensor = self.join(torch.cat([inner, self.past(x)], 1))
        return result


class Attention(Layer):
    """The attention that the configuration names, at this place of the graph."""

    def __init__(self, inside: Sequence[int], style: Style) -> None:
        super().__init__()
        self.channels = inside[0]
        kinds = {"none": nn.Identity, "cbam": _Cbam, "simam": _SimAm}
        self.attention: nn.Module = kinds[style.attention](self.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        result: Tensor = self.attention(x)
        return result


class _Cbam(nn.Module):
    """First channels, then places are weighted, by their mean and maximum."""

    REDUCTION, WINDOW = 8, 7

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(8, channels // self.REDUCTION)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.ReLU(inplace=True), nn.Conv2d(narrow, channels, 1)
        )
        self.place = nn.Conv2d(2, 1, self.WINDOW, padding=self.WINDOW // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, most = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        x = x * torch.sigmoid(self.channel(mean) + self.channel(most))
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        result: Tensor = x * torch.sigmoid(self.place(seen))
        return result


class _SimAm(nn.Module):
    """Each number is weighted by how far it stands out of its channel; nothing is learned."""

    STEADY = 1e-4

    def __init__(self, _channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        square = (x - x.mean((2, 3), keepdim=True)) ** 2
        # The paper's n - 1 for the variance; the mean of squares differs by 1 / n.
        energy = square / (4 * (square.mean((2, 3), keepdim=True) + self.STEADY)) + 0.5
        return x * torch.sigmoid(energy)


LAYERS: dict[str, type[Layer]] = {
    "attention": Attention,
    "concat": Concat,
    "conv": Conv,
    "downsample": Downsample,
    "elan": Elan,
    "fuse": Fuse,
    "pack": Pack,
    "pool": Pool,
    "repconv": RepConv,
    "spp_csp": SppCsp,
    "upsample": Upsample,
}


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
