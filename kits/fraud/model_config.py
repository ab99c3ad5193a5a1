"""What the fraud kit's neural models may be told. Dataclasses only: no torch."""

from __future__ import annotations

from dataclasses import dataclass

GRAPHS = ("on", "off", "shuffled")
SEQUENCES = ("on", "off")


@dataclass
class LstmGatConfig:
    """The default model: LSTM over the account's last events, GAT over past neighbours, a head."""

    name: str = "lstm_gat"
    # on, off (no neighbours), or shuffled (the neighbours of another event of about the same
    # time: the control that tells whether the graph helps or merely more input does).
    graph: str = "on"
    # off: the current event alone takes the place of the account's sequence.
    sequence: str = "on"
    # Width of an event vector, and of what stands for a sequence or a neighbour.
    event_width: int = 64
    hidden_width: int = 128
    # Width of the neighbourhood's summary, all heads together.
    graph_width: int = 64
    heads: int = 4
    head_width: int = 64
    dropout: float = 0.1
    # Knots of the piecewise linear code in which the head reads the current event's features.
    num_knots: int = 12
    # Codes of a categorical column; larger ones wrap around.
    num_codes: int = 256
    # Samples of one batch. In training all frauds and so many legitimate rows for each; logits
    # are those of the full data nevertheless (null: all rows).
    batch_size: int = 256
    legitimate_per_fraud: float | None = 12.0
    # Exponent of the focal loss; 0 is cross-entropy.
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        """Check choices, ranges and pairs of values."""
        _check_choice("model.graph", self.graph, GRAPHS)
        _check_choice("model.sequence", self.sequence, SEQUENCES)
        for name in ("event_width", "hidden_width", "graph_width", "heads", "head_width"):
            _check(name, getattr(self, name), "1 or more", getattr(self, name) >= 1)
        if self.graph_width % self.heads:
            raise ValueError(
                f"model.graph_width={self.graph_width} does not divide by model.heads={self.heads}"
                "; set model.heads"
            )
        _check("dropout", self.dropout, "in [0, 1)", 0 <= self.dropout < 1)
        _check("num_knots", self.num_knots, "2 or more", self.num_knots >= 2)
        _check("num_codes", self.num_codes, "2 or more", self.num_codes >= 2)
        _check("batch_size", self.batch_size, "1 or more", self.batch_size >= 1)
        ratio = self.legitimate_per_fraud
        _check("legitimate_per_fraud", ratio, "positive or null", ratio is None or ratio > 0)
        _check("focal_gamma", self.focal_gamma, "0 or more", self.focal_gamma >= 0)


@dataclass
class BriefConfig:
    """The brief's FraudDetector over windows of consecutive events, as a scorer of events."""

    name: str = "brief"
    # Events of one window: steps of the LSTM and nodes of the dense adjacency.
    window: int = 256
    # Windows of one batch; each runs by itself.
    batch_size: int = 4
    # Windows to train on, spread evenly over the training rows; null for all.
    num_windows: int | None = 500
    # Codes of a categorical column; larger ones wrap around.
    num_codes: int = 256

    def __post_init__(self) -> None:
        """Check ranges."""
        even = self.window >= 2 and self.window % 2 == 0
        _check("window", self.window, "even and 2 or more", even)
        _check("batch_size", self.batch_size, "1 or more", self.batch_size >= 1)
        number = self.num_windows
        _check("num_windows", number, "1 or more, or null", number is None or number >= 1)
        _check("num_codes", self.num_codes, "2 or more", self.num_codes >= 2)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}; set {name}")


def _check(name: str, value: object, rule: str, ok: bool) -> None:
    if not ok:
        raise ValueError(f"model.{name}={value!r} is not {rule}; set model.{name}")
