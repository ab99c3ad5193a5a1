"""A float32 ONNX model in, an 8-bit one out, within a budget of what the metric may lose."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from core.compress.config import QuantizeConfig
from core.compress.integers import Mode, Quantizer, load_graph
from core.compress.measure import (
    Compression,
    Metric,
    Predict,
    batches_of,
    compare_models,
    count_layer_flops,
    latencies_ms,
    predictor,
)
from core.compress.sensitivity import Choice, Layers, choose_float_layers, relative_error

__all__ = ["Compression", "Metric", "Predict", "QuantizeConfig", "quantize"]

# Share of a model's operations from which dynamic scales of matrix products are worth a try.
DYNAMIC_SHARE = 0.1


def quantize(
    onnx: Path,
    out: Path,
    calibration: Mapping[str, np.ndarray],
    *,
    metric: Metric | None = None,
    max_loss: float | None = None,
    cfg: QuantizeConfig | None = None,
) -> Compression:
    """Write a model in 8-bit integers, and say what that cost and gained.

    Each operator gets what works for it: convolutions and products static or dynamic scales,
    LSTMs dynamic ones, anything else stays in float32. With a metric and a budget, layers are left
    in float until the budget holds.

    Args:
        onnx: the float32 model.
        out: the file to write; its folder exists.
        calibration: input -> (n, ...) real samples.
        metric: of a predict function, higher is better; None measures nothing.
        max_loss: how much of the metric may be lost; None sets no limit.
        cfg: method, calibration and limits of the search.

    Returns:
        the path with the layers left in float and the before/after table.

    Raises:
        ValueError: calibration does not fit the model, a layer named in `cfg.float_nodes` is not
            there, or nothing can be quantised within the budget.
        ModuleNotFoundError: method nncf without the extra `convert`.
    """
    cfg = cfg or QuantizeConfig()
    if max_loss is not None and metric is None:
        raise ValueError(f"max_loss={max_loss} has no metric to hold to; give a metric")
    if cfg.method == "nncf":
        from core.compress.accuracy_control import quantize_with_nncf

        return quantize_with_nncf(onnx, out, calibration, metric=metric, max_loss=max_loss, cfg=cfg)
    before = metric(predictor(onnx)) if metric else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batches = batches_of(onnx, calibration, cfg.calibration_batch)
        quantizer = Quantizer(onnx, batches, cfg, folder)
        search = _Search(quantizer, batches_of(onnx, calibration, 1), cfg, folder)
        made = {
            mode: Choice(search.kept, 0.0, ())
            if metric is None or before is None or max_loss is None
            else search.within(mode, metric, before, max_loss)
            for mode in search.modes()
        }
        made = {mode: found for mode, found in made.items() if search.is_useful(found)}
        if not made:
            raise ValueError(
                f"max_loss={max_loss} leaves no layer of {onnx.name} in 8 bits; allow more loss or "
                "leave the model in float32"
            )
        chosen, compared = search.fastest(made)
        choice = made[chosen]
        path = quantizer.build(choice.float_layers, out, chosen)
    after = metric(predictor(path)) if metric else None
    rows = compare_models(
        {"before": onnx, "after": path}, calibration, {"before": before, "after": after},
        batches=cfg.latency_batches, runs=cfg.latency_runs,
    )  # fmt: skip
    notes = (*quantizer.notes, *choice.notes, *compared, *_only_onnxruntime(path))
    return Compression(path, chosen, choice.float_layers, rows, notes)


class _Search:
    """What each mode of quantisation can do for one model."""

    def __init__(
        self,
        quantizer: Quantizer,
        samples: Sequence[dict[str, np.ndarray]],
        cfg: QuantizeConfig,
        folder: Path,
    ) -> None:
        self._quantizer, self._cfg, self._folder = quantizer, cfg, folder
        self._samples = list(samples[: cfg.sensitivity_samples])
        self._flops = count_layer_flops(quantizer.prepared, self._samples[0])
        unknown = sorted(set(cfg.float_nodes) - set(quantizer.layers))
        if unknown:
            raise ValueError(
                f"quantize.float_nodes={unknown} are not layers of this model; choose from "
                f"{', '.join(quantizer.layers)}"
            )
        by_weight = quantizer.layers_of_weights(cfg.float_weights)
        if cfg.float_weights and not by_weight:
            raise ValueError(
                f"quantize.float_weights={list(cfg.float_weights)} begin no weight's name; choose "
                "others"
            )
        # What stays in float whatever the search says.
        self.kept: tuple[str, ...] = tuple(dict.fromkeys((*cfg.float_nodes, *by_weight)))
        self._layers = [name for name in quantizer.layers if name not in self.kept]

    def modes(self) -> list[Mode]:
        """What to try: dynamic scales only where matrix products are a good part of the work."""
        if self._cfg.method == "static":
            return ["static"]
        if self._cfg.method == "dynamic":
            return ["dynamic"]
        work = {name: self._flops.get(name, 0) for name in self._layers}
        products = [n for n in work if self._quantizer.layers[n] in ("MatMul", "Gemm")]
        share = sum(work[name] for name in products) / max(1, sum(work.values()))
        return ["static", "dynamic"] if share > DYNAMIC_SHARE else ["static"]

    def within(self, mode: Mode, metric: Metric, before: float, max_loss: float) -> Choice:
        """The layers to leave in float so that a mode holds the budget."""
        exact = predictor(self._quantizer.prepared)
        reference = [exact(inputs) for inputs in self._samples]

        def loss_with(layers: Layers) -> float:
            return before - metric(self._predictor(layers, mode))

        def error_without(layers: Layers) -> float:
            return relative_error(reference, self._predictor(layers, mode), self._samples)

        choice = choose_float_layers(
            self._layers, loss_with=loss_with, error_without=error_without, cost=self._flops,
            max_loss=max_loss, max_search_s=self._cfg.max_search_s / len(self.modes()),
        )  # fmt: skip
        return Choice((*self.kept, *choice.float_layers), choice.loss, choice.notes)

    def is_useful(self, choice: Choice) -> bool:
        """Whether any layer is in 8 bits."""
        return len(choice.float_layers) < len(self._quantizer.layers)

    def fastest(self, made: Mapping[Mode, Choice]) -> tuple[Mode, tuple[str, ...]]:
        """The mode whose model takes the least time, and what each took."""
        if len(made) == 1:
            return next(iter(made)), ()
        predicts = {str(mode): self._predictor(made[mode].float_layers, mode) for mode in made}
        many = {
            name: np.concatenate([sample[name] for sample in self._samples])
            for name in self._samples[0]
        }
        inputs = many if self._quantizer.has_free_batch else self._samples[0]
        taken = {
            mode: statistics.median(values)
            for mode, values in latencies_ms(predicts, inputs, self._cfg.latency_runs).items()
        }
        told = " and ".join(f"{mode} {value:.3g} ms" for mode, value in taken.items())
        best = min(made, key=lambda mode: taken[mode])
        return best, (f"{told} for {len(self._samples)} samples",)

    def _predictor(self, float_layers: Layers, mode: Mode) -> Predict:
        layers = {*self.kept, *float_layers}
        return predictor(self._quantizer.build(layers, self._folder / f"{mode}.onnx", mode))


def _only_onnxruntime(path: Path) -> tuple[str, ...]:
    graph = load_graph(path)
    kinds = sorted({node.op_type for node in graph.node if node.domain == "com.microsoft"})
    return (f"{', '.join(kinds)} exist in ONNX Runtime only",) if kinds else ()
