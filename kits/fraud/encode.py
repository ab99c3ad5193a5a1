"""From raw fold features to what the networks compute with.

Dimensions: F features, C categorical columns, Q knots of a feature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Standardised features are cut here: one absurd amount must not drown an event vector.
MAX_STANDARDISED = 10.0
# Angular frequencies on the scale of log(1 + seconds), which runs from 0 to 17 in a year.
GAP_FREQUENCIES = (0.25, 0.5, 1.0, 2.0)
GAP_WIDTH = 2 + 2 * len(GAP_FREQUENCIES)
MONTH_S = 30 * 86400.0
# Knots are closer in the upper tail, where the rare amounts and the risks are.
TAIL_POWER = 3.0
MIN_KNOT_STEP = 0.02


def encode_gap(gap_s: Tensor) -> Tensor:
    """Encode how long ago something was.

    Args:
        gap_s: (...) seconds, at least 0.

    Returns:
        (..., GAP_WIDTH): waves of log(1 + gap), that logarithm, and months up to 4.
    """
    logarithm = torch.log1p(gap_s)
    waves = [wave(logarithm * w) for w in GAP_FREQUENCIES for wave in (torch.sin, torch.cos)]
    return torch.stack([*waves, logarithm / 8 - 1, (gap_s / MONTH_S).clamp(max=4.0)], dim=-1)


class EventEncoder(nn.Module):
    """An event as a vector: projected standardised features plus embedded categorical values."""

    mean: Tensor
    scale: Tensor
    offsets: Tensor

    def __init__(self, num_features: int, num_categorical: int, width: int, num_codes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("offsets", torch.arange(num_categorical) * num_codes)
        self.num_codes = num_codes
        self.projection = nn.Linear(num_features, width)
        self.embedding = None
        if num_categorical:
            self.embedding = nn.Embedding(num_categorical * num_codes, width)
            nn.init.normal_(self.embedding.weight, std=0.1)

    @torch.no_grad()
    def fit(self, features: Tensor, other: EventEncoder | None = None) -> None:
        """Take mean and spread from training rows, or from another encoder.

        Args:
            features: (rows, F) raw, NaN where missing; a feature that is constant or always
                missing gets scale 0 and so no influence.
            other: an encoder that is fitted already.
        """
        if other is not None:
            self.mean.copy_(other.mean)
            self.scale.copy_(other.scale)
            return
        x = torch.sign(features) * torch.log1p(features.abs())
        self.mean.copy_(x.nanmean(0).nan_to_num())
        spread = (x - self.mean).square().nanmean(0).sqrt().nan_to_num()
        self.scale.copy_(torch.where(spread > 1e-4, 1 / spread.clamp(min=1e-4), 0.0))

    def standardise(self, features: Tensor) -> Tensor:
        """Signed logarithm, then mean 0 and spread 1 of the training rows; missing becomes 0."""
        x = torch.sign(features) * torch.log1p(features.abs())
        x = (x - self.mean) * self.scale
        # Infinities end at the cut; nan_to_num would be seven operations in an exported graph.
        x = torch.where(x.isnan(), 0.0, x)
        return x.clamp(-MAX_STANDARDISED, MAX_STANDARDISED)

    def forward(self, standardised: Tensor, codes: Tensor) -> Tensor:
        """(..., F) standardised features and (..., C) integer codes -> (..., width)."""
        vector: Tensor = self.projection(standardised)
        if self.embedding is not None:
            vector = vector + self.embedding(codes % self.num_codes + self.offsets).sum(-2)
        return vector


class PiecewiseLinear(nn.Module):
    """Each feature as Q - 1 ramps between its quantiles, so that a linear layer can bend it.

    Source: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", 2022.
    """

    knots: Tensor

    def __init__(self, num_features: int, num_knots: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(-2, 2, num_knots).repeat(num_features, 1))
        self.width = num_features * (num_knots - 1)

    @torch.no_grad()
    def fit(self, standardised: Tensor) -> None:
        """Put the knots at quantiles of (rows, F) standardised training rows."""
        even = torch.linspace(0, 1, self.knots.shape[1], dtype=standardised.dtype)
        share = 1 - (1 - even) ** TAIL_POWER
        self.knots.copy_(torch.quantile(standardised, share, dim=0).T)

    def forward(self, standardised: Tensor) -> Tensor:
        """(B, F) -> (B, F * (Q - 1)), each in [0, 1]."""
        low, high = self.knots[:, :-1], self.knots[:, 1:]
        ramps = (standardised.unsqueeze(-1) - low) / (high - low).clamp(min=MIN_KNOT_STEP)
        return ramps.clamp(0.0, 1.0).flatten(1)
