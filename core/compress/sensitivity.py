"""Which layers to leave in float: first what each costs alone, then as few as the budget allows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.compress.measure import Arrays, Predict

Layers = Collection[str]


@dataclass(frozen=True)
class Choice:
    """Layers left in float, the metric with them, and how they were found."""

    float_layers: tuple[str, ...]
    loss: float
    notes: tuple[str, ...]


def relative_error(
    reference: Sequence[Mapping[str, np.ndarray]], predict: Predict, batches: Sequence[Arrays]
) -> float:
    """|outputs - reference| / |reference| in the L2 norm, over all floating outputs and batches.

    Args:
        reference: the float32 model's outputs of each batch.
        predict: the other model.
        batches: inputs.
    """
    difference = total = 0.0
    for inputs, expected in zip(batches, reference, strict=True):
        outputs = predict(inputs)
        for name, wanted in expected.items():
            if np.issubdtype(wanted.dtype, np.floating):
                exact = wanted.astype(np.float64)
                difference += float(np.square(outputs[name] - exact).sum())
                total += float(np.square(exact).sum())
    return math.sqrt(difference / total) if total else math.inf


def layer_errors(
    layers: Sequence[str], error_without: Callable[[Layers], float], deadline_s: float
) -> tuple[dict[str, float], int]:
    """Output error that each layer causes when it alone, or its group, is in 8 bits.

    Groups of neighbouring layers are halved, the worst first, until every group is one layer,
    shares less than a hundredth of the whole error, or time is up: errors of layers add up like
    independent noise, so that a small group has no bad member.

    Args:
        layers: in the order of the graph.
        error_without: relative output error with these layers in float and all others in 8 bits.
        deadline_s: of `time.monotonic`.

    Returns:
        layer -> its group's squared error divided by the group's size, and the number of groups.
    """

    def squared(group: Sequence[str]) -> float:
        inside = set(group)
        return error_without([name for name in layers if name not in inside]) ** 2

    groups = {tuple(layers): squared(layers)}
    negligible = groups[tuple(layers)] / 100
    while time.monotonic() < deadline_s:
        open_groups = [g for g, error in groups.items() if len(g) > 1 and error > negligible]
        if not open_groups:
            break
        worst = max(open_groups, key=lambda group: groups[group])
        del groups[worst]
        middle = len(worst) // 2
        for half in (worst[:middle], worst[middle:]):
            groups[half] = squared(half)
    errors = {name: error / len(group) for group, error in groups.items() for name in group}
    return errors, len(groups)


def choose_float_layers(
    layers: Sequence[str],
    *,
    loss_with: Callable[[Layers], float],
    error_without: Callable[[Layers], float],
    cost: Mapping[str, float],
    max_loss: float,
    max_search_s: float,
) -> Choice:
    """Find few layers to leave in float such that the metric's loss stays within its budget.

    First no layer, then the layers with the most output error for each operation that 8 bits save,
    as many as a bisection finds necessary; then those are taken back one by one, the most costly
    first, as long as the budget still holds.

    Args:
        layers: that can be quantised, in the order of the graph.
        loss_with: metric's loss with these layers in float.
        error_without: see `layer_errors`.
        cost: operations of each layer.
        max_loss: the budget.
        max_search_s: the search ends after this with the best choice found until then.
    """
    start = time.monotonic()
    deadline_s = start + max_search_s
    loss = loss_with(())
    if loss <= max_loss:
        return Choice((), loss, ())
    # Half of the time finds the order, half of it the number.
    errors, num_groups = layer_errors(layers, error_without, start + max_search_s / 2)
    order = sorted(layers, key=lambda name: errors[name] / max(cost[name], 1.0), reverse=True)
    notes = [f"{num_groups} groups of {len(layers)} layers measured one by one"]
    best, best_loss = tuple(order), 0.0
    low, high = 0, len(order)  # low fails, high holds: with every layer in float nothing is lost
    while high - low > 1 and time.monotonic() < deadline_s:
        middle = (low + high) // 2
        loss = loss_with(order[:middle])
        if loss <= max_loss:
            high, best, best_loss = middle, tuple(order[:middle]), loss
        else:
            low = middle
    for name in sorted(best, key=lambda name: cost[name], reverse=True):
        if time.monotonic() >= deadline_s:
            notes.append(f"the search ended after {max_search_s:g} s")
            break
        if len(best) == 1:
            break
        fewer = tuple(other for other in best if other != name)
        loss = loss_with(fewer)
        if loss <= max_loss:
            best, best_loss = fewer, loss
    return Choice(best, best_loss, tuple(notes))
