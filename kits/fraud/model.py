"""The default network: an LSTM over an account's events joined with attention over neighbours.

Static shapes and no data-dependent control flow, so that it exports. The account's last K events
are read anew for each score; no recurrent state is kept between scores.

Dimensions: B batch, K history, N neighbours, F features, C categorical columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.gat import neighbour_attention
from kits.fraud.encode import GAP_WIDTH, EventEncoder, PiecewiseLinear, encode_gap
from kits.fraud.model_config import LstmGatConfig

# -1 not known at query time, 0 known legitimate, 1 known fraud.
NUM_STATUSES = 3
NEGATIVE_SLOPE = 0.2


class LstmGat(nn.Module):
    """LSTM(64 -> 128) over the account's history, GAT(128 -> 64) over its neighbours, a head.

    Args:
        cfg: widths and which parts there are.
        num_features: F.
        num_categorical: C.
        neighbour_role: (N,) which entity role each neighbour slot stands for.
    """

    def __init__(
        self, cfg: LstmGatConfig, num_features: int, num_categorical: int, neighbour_role: Tensor
    ) -> None:
        super().__init__()
        self.has_graph, self.has_sequence = cfg.graph != "off", cfg.sequence == "on"
        self.encoder = EventEncoder(num_features, num_categorical, cfg.event_width, cfg.num_codes)
        self.ramps = PiecewiseLinear(num_features, cfg.num_knots)
        if self.has_sequence:
            self.history_gap = nn.Linear(GAP_WIDTH, cfg.event_width, bias=False)
            self.history_status = _embedding(NUM_STATUSES, cfg.event_width)
            self.lstm = nn.LSTM(cfg.event_width, cfg.hidden_width, batch_first=True)
        else:
            self.alone = nn.Linear(cfg.event_width, cfg.hidden_width)
        if self.has_graph:
            self.gat = NeighbourAttention(cfg, neighbour_role)
        width = num_features + self.ramps.width + cfg.hidden_width
        self.head = nn.Sequential(
            nn.Linear(width + cfg.graph_width * self.has_graph, cfg.head_width),
            nn.ReLU(),
            nn.Dropout(cfg.dropout),
            nn.Linear(cfg.head_width, 1),
        )

    @torch.no_grad()
    def fit_inputs(
        self, features: Tensor, fraud_rate: float, encoder: EventEncoder | None = None
    ) -> None:
        """Fit what is not learned by gradients.

        Args:
            features: (rows, F) raw features of training rows.
            fraud_rate: share of frauds in the training data; the first logits start there.
            encoder: whose standardisation to take instead of fitting it.
        """
        self.encoder.fit(features, encoder)
        self.ramps.fit(self.encoder.standardise(features))
        self.head[-1].bias.fill_(float(torch.logit(torch.tensor(fraud_rate), eps=1e-6)))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Score each event of a batch.

        Args:
            inputs: x_history (B, K, F) raw features, the event itself last; history_mask (B, K)
                bool; history_gap (B, K) seconds before the event; history_status (B, K) int64;
                c_history (B, K, C) int64. Likewise x_neighbours (B, N, F), neighbour_mask,
                neighbour_gap, neighbour_status (B, N), c_neighbours (B, N, C), unless there is no
                graph. Training gives z_history and z_neighbours instead of x_history and
                x_neighbours: the same, standardised once for all epochs.

        Returns:
            (B,) float32 logits of fraud.
        """
        history = self._standardised(inputs, "history")
        now = history[:, -1]
        hidden = self._read_history(history, inputs)
        parts = [now, self.ramps(now), hidden.float()]
        if self.has_graph:
            neighbours = self._standardised(inputs, "neighbours")
            summary = self.gat(
                hidden,
                self.encoder(neighbours, inputs["c_neighbours"]),
                inputs["neighbour_gap"],
                inputs["neighbour_status"],
                inputs["neighbour_mask"],
            )
            parts.append(summary.float())
        logit: Tensor = self.head(torch.cat(parts, dim=-1)).squeeze(-1)
        return logit.float()

    def _standardised(self, inputs: Mapping[str, Tensor], name: str) -> Tensor:
        if f"z_{name}" in inputs:
            return inputs[f"z_{name}"]
        return self.encoder.standardise(inputs[f"x_{name}"])

    def _read_history(self, history: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, K, F) -> (B, hidden_width)."""
        if not self.has_sequence:
            event = self.encoder(history[:, -1], inputs["c_history"][:, -1])
            return torch.tanh(self.alone(event))
        events = self.encoder(history, inputs["c_history"])
        events = events + self.history_gap(encode_gap(inputs["history_gap"]))
        events = events + self.history_status(inputs["history_status"] + 1)
        # Padding is in front: the LSTM starts from a learned state after that many zero inputs.
        events = torch.where(inputs["history_mask"].unsqueeze(-1), events, 0.0)
        hidden: Tensor = self.lstm(events)[0][:, -1]
        return hidden


class NeighbourAttention(nn.Module):
    """Graph attention of an event over a fixed number of earlier events at its entities.

    A neighbour node joins the neighbour's event vector, the entity role it came by, its age and
    what is known of its label; the score is the GAT's, with a bias for each role.

    Source: Velickovic et al., "Graph Attention Networks", 2018; past-only neighbours after Lu et
    al., "BRIGHT", 2022.
    """

    role: Tensor

    def __init__(self, cfg: LstmGatConfig, neighbour_role: Tensor) -> None:
        super().__init__()
        num_roles = int(neighbour_role.max()) + 1
        self.heads, width = cfg.heads, cfg.graph_width // cfg.heads
        self.register_buffer("role", neighbour_role.long())
        self.event = nn.Linear(cfg.event_width, cfg.hidden_width)
        self.age = nn.Linear(GAP_WIDTH, cfg.hidden_width, bias=False)
        self.status_vector = _embedding(NUM_STATUSES, cfg.hidden_width)
        self.role_vector = _embedding(num_roles, cfg.hidden_width)
        self.role_score = nn.Embedding(num_roles, cfg.heads)
        nn.init.zeros_(self.role_score.weight)
        self.source = nn.Linear(cfg.hidden_width, cfg.graph_width, bias=False)
        self.target = nn.Linear(cfg.hidden_width, cfg.heads, bias=False)
        self.attention_source = nn.Parameter(torch.empty(cfg.heads, width))
        nn.init.xavier_uniform_(self.attention_source)

    def forward(
        self, query: Tensor, events: Tensor, gap_s: Tensor, status: Tensor, is_valid: Tensor
    ) -> Tensor:
        """Summarise the neighbourhood of each event.

        Args:
            query: (B, hidden_width) the event as its account's sequence ends.
            events: (B, N, event_width) the neighbours' event vectors.
            gap_s: (B, N) seconds since each.
            status: (B, N) int64, -1 open, 0 legitimate, 1 fraud.
            is_valid: (B, N) bool; invalid slots have no influence.

        Returns:
            (B, graph_width), zeros where there is no neighbour.
        """
        # A node is a sum, so the GAT's projection is applied to each summand: the same, at a
        # quarter of the cost, and what depends on the neighbour alone can be cached per event.
        w = self.source.weight
        values = functional.linear(events, w @ self.event.weight, w @ self.event.bias)
        values = values + functional.linear(encode_gap(gap_s), w @ self.age.weight)
        values = values + functional.embedding(status + 1, self.status_vector.weight @ w.T)
        values = values + functional.embedding(self.role, self.role_vector.weight @ w.T)
        values = values.unflatten(-1, (self.heads, -1))
        scores = (values * self.attention_source).sum(-1) + self.target(query).unsqueeze(1)
        scores = functional.leaky_relu(scores + self.role_score(self.role), NEGATIVE_SLOPE)
        return neighbour_attention(values, scores, is_valid).flatten(1)


def _embedding(num: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(num, width)
    nn.init.normal_(embedding.weight, std=0.3)
    return embedding
