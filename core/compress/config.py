"""What compression may be told. Dataclasses only: no torch, so that ``--help`` stays quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class QuantizeConfig:
    """How a model's numbers become 8-bit integers."""

    # static (scales from the calibration set), dynamic (scales from each input), nncf (OpenVINO's
    # accuracy-aware search), or auto: static and dynamic are tried, the faster one within the
    # loss budget is kept.
    method: str = "auto"
    # How a tensor's range is taken from the calibration set: minmax, percentile or entropy.
    calibration: str = "minmax"
    # percentile: the share of values inside the range, in percent.
    percentile: float = 99.999
    # Calibration samples in one run of the model.
    calibration_batch: int = 16
    # Samples on which a layer's share of the output error is measured.
    sensitivity_samples: int = 16
    # The search for layers to leave in float ends after this; what was found by then is kept.
    max_search_s: float = 600.0
    # Standard operators only, for any runtime; an LSTM in 8 bits exists in ONNX Runtime alone.
    is_portable: bool = False
    # Names of nodes that stay in float whatever the search says.
    float_nodes: list[str] = field(default_factory=list)
    # The before/after table measures the latency of these batches, on one thread.
    latency_batches: list[int] = field(default_factory=lambda: [1])
    # Runs of each model and batch behind a median; the models take turns.
    latency_runs: int = 30

    def __post_init__(self) -> None:
        """Check names and ranges."""
        _one_of("quantize.method", self.method, "auto", "static", "dynamic", "nncf")
        _one_of("quantize.calibration", self.calibration, "minmax", "percentile", "entropy")
        _check("quantize.percentile", self.percentile, "in (50, 100]", lambda v: 50 < v <= 100)
        for name in ("calibration_batch", "sensitivity_samples", "latency_runs"):
            _check(f"quantize.{name}", getattr(self, name), "1 or more", lambda v: v >= 1)
        _check("quantize.max_search_s", self.max_search_s, "positive", lambda v: v > 0)
        _check(
            "quantize.latency_batches", self.latency_batches, "a list of batches of 1 or more",
            lambda v: len(v) > 0 and min(v) >= 1,
        )  # fmt: skip


@dataclass
class PruneConfig:
    """How whole channels are taken out of a model."""

    # Share of the FLOPs that remain.
    flops_share: float = 0.5
    # How far the share reached may lie from the share wanted.
    tolerance: float = 0.02
    # The model is pruned in so many rounds, and trained on after each.
    rounds: int = 3
    # No layer loses more than this share of its channels.
    max_layer_share: float = 0.9
    # Remaining channels are a multiple of this where a layer has as many.
    round_to: int = 1
    # A channel's importance is this norm of its weights, over all layers coupled to it.
    norm: int = 2
    # Names of modules that keep their channels; recurrent and attention layers always do.
    kept_modules: list[str] = field(default_factory=list)
    # Latency of the before/after table, as in quantize.
    latency_runs: int = 30

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("flops_share", "max_layer_share", "tolerance"):
            _check(f"prune.{name}", getattr(self, name), "in (0, 1)", lambda v: 0 < v < 1)
        for name in ("rounds", "round_to", "norm", "latency_runs"):
            _check(f"prune.{name}", getattr(self, name), "1 or more", lambda v: v >= 1)


@dataclass
class CompressConfig:
    """What happens to a model before it is converted; pruning comes first."""

    is_pruned: bool = False
    is_quantized: bool = False
    # How much of the metric (higher is better) quantisation may cost; null sets no limit.
    max_loss: float | None = 0.002
    prune: PruneConfig = field(default_factory=PruneConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)

    def __post_init__(self) -> None:
        """Check the budget."""
        if self.max_loss is not None:
            _check("compress.max_loss", self.max_loss, "0 or more", lambda v: v >= 0)


def _check(name: str, value: Any, rule: str, is_kept: Callable[[Any], bool]) -> None:
    if not is_kept(value):
        raise ValueError(f"{name}={value!r} is not {rule}; set {name}")


def _one_of(name: str, value: str, *names: str) -> None:
    _check(name, value, f"one of {', '.join(names)}", lambda v: v in names)
