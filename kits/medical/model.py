"""The 3D U-Net of the kit: teacher and student are two sets of its settings.

Dimensions: N batch, C channels, D slices, H rows, W columns. The way down is that of nnU-Net and of
MONAI's DynUNet (residual blocks where asked for), so that the teacher has their published size.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kits.medical.findings import TEXTURES
from kits.medical.model_config import UNetConfig

LOWEST_HU, HIGHEST_HU = -1000.0, 400.0
MIDDLE_HU, HALF_RANGE_HU = -300.0, 700.0
# The share of voxels, and of cells, that an untrained network calls a nodule.
PRIOR_LOGIT = {"mask": -2.2, "heat": -4.6}
Stride = tuple[int, int, int]
SAME: Stride = (1, 1, 1)
HALF: Stride = (2, 2, 2)
FLAT: Stride = (1, 2, 2)
OUTPUT_NAMES = ("mask", "heat", "texture")


class UNet(nn.Module):
    """Hounsfield units in, logits out: mask, heat-map of centres and texture.

    The window is inside, so that no caller can forget it. `heat` and `texture` have half the
    resolution of the input.
    """

    def __init__(self, cfg: UNetConfig) -> None:
        """Build it with fresh weights."""
        super().__init__()
        self.cfg = cfg
        widths = [1, *cfg.widths]
        strides = _strides(cfg)
        self.down = nn.ModuleList(
            _level(cfg, widths[k], widths[k + 1], stride=strides[k]) for k in range(len(strides))
        )
        up = _Rise if cfg.upsampling == "transposed" else _LightRise
        # Coarsest first, the order in which they run.
        self.up = nn.ModuleList(
            up(cfg, cfg.widths[k + 1], cfg.widths[k], strides[k + 1])
            for k in reversed(range(len(cfg.widths) - 1))
        )
        fine, half = cfg.widths[0], cfg.widths[1]
        self.mask = nn.Conv3d(fine, 1, 1)
        self.shared = Convolution(cfg, half, half, kernel=1)
        self.heat = nn.Conv3d(half, 1, 1)
        self.texture = nn.Conv3d(half, len(TEXTURES), 1)
        for name, value in PRIOR_LOGIT.items():
            bias = getattr(self, name).bias
            nn.init.constant_(bias, value)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 1, D, H, W) HU -> mask (N, 1, D, H, W); heat (N, 1, ...), texture (N, 3, ...) / 2."""
        window = image.clamp(LOWEST_HU, HIGHEST_HU)
        x, skips = (window - MIDDLE_HU) / HALF_RANGE_HU, []
        for level in self.down:
            x = level(x)
            skips.append(x)
        skips.pop()
        half = x  # the finest but one; with two levels it is the coarsest
        for rise in self.up:
            half, x = x, rise(x, skips.pop())
        shared = self.shared(half)
        return {"mask": self.mask(x), "heat": self.heat(shared), "texture": self.texture(shared)}


class Convolution(nn.Sequential):
    """Convolution, norm and, unless it is the last of a sum, activation."""

    def __init__(
        self,
        cfg: UNetConfig,
        inside: int,
        outside: int,
        *,
        kernel: int = 3,
        stride: Stride = SAME,
        is_active: bool = True,
    ) -> None:
        super().__init__(
            nn.Conv3d(inside, outside, kernel, stride, padding=kernel // 2, bias=False),
            _norm(cfg, outside),
            *([_activation(cfg)] if is_active else []),
        )


class _Residual(nn.Module):
    """Convolutions and a sum past them, narrowed and widened by a pointwise one."""

    def __init__(self, cfg: UNetConfig, inside: int, outside: int, stride: Stride) -> None:
        super().__init__()
        last = cfg.convolutions - 1
        self.body = nn.Sequential(
            *(
                Convolution(
                    cfg,
                    outside if k else inside,
                    outside,
                    stride=SAME if k else stride,
                    is_active=k < last,
                )
                for k in range(cfg.convolutions)
            )
        )
        is_same = inside == outside and stride == SAME
        self.past = (
            nn.Identity()
            if is_same
            else Convolution(cfg, inside, outside, kernel=1, stride=stride, is_active=False)
        )
        self.activation = _activation(cfg)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.activation(self.body(x) + self.past(x))
        return total


class _Rise(nn.Module):
    """Up by a transposed convolution, the skip concatenated."""

    def __init__(self, cfg: UNetConfig, inside: int, outside: int, stride: Stride) -> None:
        super().__init__()
        self.rise = nn.ConvTranspose3d(inside, outside, stride, stride, bias=False)
        self.body = nn.Sequential(
            *(
                Convolution(cfg, outside if k else 2 * outside, outside)
                for k in range(cfg.decoder_convolutions)
            )
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        result: Tensor = self.body(torch.cat([self.rise(x), skip], 1))
        return result


class _LightRise(nn.Module):
    """Narrowed by a pointwise convolution, repeated to twice the size, the skip added."""

    def __init__(self, cfg: UNetConfig, inside: int, outside: int, stride: Stride) -> None:
        super().__init__()
        self.narrow = Convolution(cfg, inside, outside, kernel=1, is_active=False)
        self.rise = nn.Upsample(scale_factor=stride, mode="nearest")
        self.body = nn.Sequential(
            *(Convolution(cfg, outside, outside) for _ in range(cfg.decoder_convolutions))
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        result: Tensor = self.body(self.rise(self.narrow(x)) + skip)
        return result


def build_network(cfg: UNetConfig) -> UNet:
    """The network of these settings, in the memory layout that processors are fast with."""
    # Instance norm has no fast kernel for it.
    layout = torch.channels_last_3d if cfg.norm == "batch" else torch.contiguous_format
    return UNet(cfg).to(memory_format=layout)


def fold_batch_norm(network: UNet) -> UNet:
    """A copy for prediction: each batch norm goes into the convolution before it.

    The copy computes the same to 1e-5; instance norms stay.
    """
    folded = deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, Convolution) and isinstance(module[1], nn.BatchNorm3d):
            module[0] = fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return folded


def _strides(cfg: UNetConfig) -> list[Stride]:
    """Of each level's first convolution."""
    halvings = len(cfg.widths) - 1
    return [SAME, *[HALF] * (halvings - cfg.flat), *[FLAT] * cfg.flat]


def _level(cfg: UNetConfig, inside: int, outside: int, *, stride: Stride) -> nn.Module:
    if cfg.residual:
        return _Residual(cfg, inside, outside, stride)
    return nn.Sequential(
        *(
            Convolution(cfg, outside if k else inside, outside, stride=SAME if k else stride)
            for k in range(cfg.convolutions)
        )
    )


def _norm(cfg: UNetConfig, channels: int) -> nn.Module:
    if cfg.norm == "batch":
        return nn.BatchNorm3d(channels)
    return nn.InstanceNorm3d(channels, affine=True)


def _activation(cfg: UNetConfig) -> nn.Module:
    if cfg.negative_slope == 0:
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(cfg.negative_slope, inplace=True)
