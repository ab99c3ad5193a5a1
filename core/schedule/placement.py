"""Which device should compute how much of which model: linear programs over rates, by HiGHS.

A rate is rows per second. M models, K groups of equal devices; a cost is device seconds per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[str, str]  # model, kind

# A group's load is the dearer the fuller it is: up to each share of its time, at each price. Queues
# grow as 1 / (1 - load) does; the last price is that of asking for more than there is.
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1e9)
PRICES = (1.0, 1.6, 2.5, 4.0, 7.0, 12.0, 100.0)


@dataclass(frozen=True)
class Bound:
    """The most that devices can do of a mix, whatever the rule."""

    rate: float  # jobs per second, of all models together
    share: Mapping[Pair, float]  # of each model's jobs: how many go to that kind
    load: Mapping[str, float]  # of each kind's time


@dataclass(frozen=True)
class Balance:
    """How a given load is best spread: no queue longer than it need be."""

    share: Mapping[Pair, float]  # of each model's rows: how many go to that group
    # How much dearer than its best pair a pair is, at the prices of the groups' time; >= 1.
    dearness: Mapping[Pair, float]


def bound(
    mix: Mapping[str, float], costs: Mapping[Pair, float], counts: Mapping[str, float]
) -> Bound:
    """The largest rate of a fixed mix that devices can compute.

    Args:
        mix: of each model, its share of the jobs; scaled to a sum of 1.
        costs: seconds per job of each pair that can be; the best batching included.
        counts: devices of each kind; a device at half speed counts half.
    Raises:
        ValueError: a model of the mix runs nowhere.
    """
    import numpy as np

    total = sum(mix.values())
    models = [model for model in mix if mix[model] > 0]
    pairs = _pairs(models, costs, counts)
    objective = np.zeros(len(pairs) + 1)
    objective[-1] = -1.0
    demand = np.array([-mix[model] / total for model in models])
    time, served = _constraints(models, list(counts), pairs, costs)
    solution = _solve(
        objective,
        np.column_stack([time, np.zeros(len(counts))]),
        np.array([float(counts[kind]) for kind in counts]),
        np.column_stack([served, demand]),
        np.zeros(len(models)),
    )
    rates, rate = solution.x[:-1], float(solution.x[-1])
    share = {pair: float(rates[i]) * total / (rate * mix[pair[0]]) for i, pair in enumerate(pairs)}
    used = time @ rates
    load = {kind: float(used[k]) / counts[kind] for k, kind in enumerate(counts) if counts[kind]}
    return Bound(rate, share, load)


def balance(
    rates: Mapping[str, float], costs: Mapping[Pair, float], counts: Mapping[str, float]
) -> Balance:
    """Spread given rates so that the sum of all groups' prices for their load is least.

    Unlike `bound` it has one answer where a model is no bottleneck, too, and a price everywhere.

    Raises:
        ValueError: a model runs nowhere.
    """
    import numpy as np

    models, kinds = list(rates), list(counts)
    pairs = _pairs(models, costs, counts)
    time, served = _constraints(models, kinds, pairs, costs)
    steps = np.diff([0.0, *LOADS])
    # Load of a group, cut into steps of growing price: time used <= sum of its steps.
    num_steps = len(PRICES)
    cuts = np.zeros((len(kinds), len(kinds) * num_steps))
    room = np.empty(len(kinds) * num_steps)
    for k, kind in enumerate(kinds):
        cuts[k, k * num_steps : (k + 1) * num_steps] = -1.0
        room[k * num_steps : (k + 1) * num_steps] = steps * counts[kind]
    solution = _solve(
        np.concatenate([np.zeros(len(pairs)), np.tile(PRICES, len(kinds))]),
        np.column_stack([time, cuts]),
        np.zeros(len(kinds)),
        np.column_stack([served, np.zeros((len(models), cuts.shape[1]))]),
        np.array([rates[model] for model in models]),
        upper=np.concatenate([np.full(len(pairs), np.inf), room]),
    )
    prices = -solution.ineqlin.marginals
    price = {kind: max(float(prices[k]), PRICES[0]) for k, kind in enumerate(kinds)}
    least = dict.fromkeys(models, np.inf)
    for model, kind in pairs:
        least[model] = min(least[model], costs[model, kind] * price[kind])
    share = {
        pair: float(solution.x[i]) / rates[pair[0]] if rates[pair[0]] else 0.0
        for i, pair in enumerate(pairs)
    }
    dearness = {pair: costs[pair] * price[pair[1]] / least[pair[0]] for pair in pairs}
    return Balance(share, dearness)


def _pairs(
    models: Sequence[str], costs: Mapping[Pair, float], counts: Mapping[str, float]
) -> list[Pair]:
    pairs = [
        (model, kind)
        for model in models
        for kind in counts
        if counts[kind] > 0 and (model, kind) in costs
    ]
    homeless = set(models) - {model for model, _ in pairs}
    if homeless:
        raise ValueError(
            f"model {min(homeless)!r} has no cost on any of {sorted(counts)}; measure it, or take "
            "it out of the mix"
        )
    return pairs


def _constraints(
    models: Sequence[str], kinds: Sequence[str], pairs: Sequence[Pair], costs: Mapping[Pair, float]
) -> tuple[np.ndarray, np.ndarray]:
    """(K, pairs) seconds that a row of a pair takes of a group; (M, pairs) whose row it is."""
    import numpy as np

    time, served = np.zeros((len(kinds), len(pairs))), np.zeros((len(models), len(pairs)))
    for i, (model, kind) in enumerate(pairs):
        time[kinds.index(kind), i] = costs[model, kind]
        served[models.index(model), i] = 1.0
    return time, served


def _solve(
    objective: np.ndarray,
    at_most: np.ndarray,
    limits: np.ndarray,
    equal: np.ndarray,
    to: np.ndarray,
    *,
    upper: np.ndarray | None = None,
) -> Any:
    import numpy as np
    from scipy.optimize import linprog

    most = np.full(len(objective), np.inf) if upper is None else upper
    solution = linprog(
        objective,
        A_ub=at_most,
        b_ub=limits,
        A_eq=equal,
        b_eq=to,
        bounds=np.column_stack([np.zeros(len(objective)), most]),
        method="highs",
    )
    assert solution.status == 0, solution.message
    return solution
