"""The brief's own model, as it is written there, and what makes it a scorer of transactions.

Dimensions: W windows, N events of a window (steps of the LSTM, nodes of the graph), F features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kernels.gat import GraphAttentionLayer
from kits.fraud.encode import EventEncoder

EVENT_WIDTH = 64
# Probabilities are kept this far from 0 and 1 when they are turned back into logits.
MIN_PROBABILITY = 1e-6


class FraudDetector(nn.Module):
    """The brief's model, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size=64, hidden_size=128)
        self.gat = GraphAttentionLayer(128, 64)

    def forward(self, x: Tensor, adj_matrix: Tensor) -> Tensor:
        """(N, 64) event vectors and (N, N) edges, row attends to column -> (N,) probabilities."""
        lstm_out, _ = self.lstm(x)
        gat_out = self.gat(lstm_out, adj_matrix)
        return torch.sigmoid(gat_out.mean(dim=1))


class BriefScorer(nn.Module):
    """FraudDetector over windows of consecutive events; edges lead from earlier events only."""

    def __init__(self, num_features: int, num_categorical: int, num_codes: int) -> None:
        super().__init__()
        self.encoder = EventEncoder(num_features, num_categorical, EVENT_WIDTH, num_codes)
        self.detector = FraudDetector()

    @torch.no_grad()
    def fit_inputs(
        self, features: Tensor, fraud_rate: float, encoder: EventEncoder | None = None
    ) -> None:
        """Fit the inputs, as LstmGat does; the first probabilities are the share of frauds."""
        self.encoder.fit(features, encoder)
        self.detector.gat.bias.fill_(float(torch.logit(torch.tensor(fraud_rate), eps=1e-6)))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Score every event of each window.

        Args:
            inputs: z (W, N, F) standardised features (or x, raw), c (W, N, C) codes,
                adjacency (W, N, N) bool.

        Returns:
            (W, N) float32 logits.
        """
        z = inputs["z"] if "z" in inputs else self.encoder.standardise(inputs["x"])
        events = self.encoder(z, inputs["c"])
        pairs = zip(events, inputs["adjacency"], strict=True)
        # The brief's forward knows no batch: one window after the other.
        probability = torch.stack([self.detector(x, adjacency) for x, adjacency in pairs])
        return torch.logit(probability.float(), eps=MIN_PROBABILITY)
