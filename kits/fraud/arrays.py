"""What the neural models read: every event's features and the numbers of the events around it.

Dimensions: n events, F features, C categorical columns, K history, N neighbours, E entity roles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# The neighbours of a control come from at most so many events earlier: about the same time.
MAX_SHIFT = 4096


@dataclass(frozen=True)
class FraudArrays:
    """All events in time order; columns may be memory-mapped. Nothing of a row is later than it."""

    features: np.ndarray  # (n, F) float32 as the fold gives them, NaN where missing
    feature_names: tuple[str, ...]
    codes: np.ndarray  # (n, C) int: 0 missing, 1, 2, ... values of a categorical column
    history: np.ndarray  # (n, K) int32 events of the account, itself last; -1 padding
    history_status: np.ndarray  # (n, K) int8 what is known by now: 1 fraud, 0 legitimate, -1 open
    neighbours: np.ndarray  # (n, N) int32 earlier events at the same entities; -1 padding
    neighbour_status: np.ndarray  # (n, N) int8, as history_status
    neighbour_role: np.ndarray  # (N,) role of each column of `neighbours`
    time_s: np.ndarray  # (n,) int64, not decreasing
    label: np.ndarray  # (n,) int8 0, 1, or -1 unknown; read at training and evaluation rows alone
    entities: np.ndarray  # (n, E) uint64 tokens, 0 where empty; only the brief's model reads them
    entity_kinds: tuple[str, ...]  # roles of one kind share their tokens

    def __len__(self) -> int:
        """Number of events."""
        return len(self.time_s)


def shuffle_neighbours(arrays: FraudArrays, seed: int) -> FraudArrays:
    """Give every event the neighbours of a random slightly earlier one: the graph control.

    Sizes, ages and statuses of the neighbourhoods keep their distribution, and all of it was known
    at the event; only whose neighbourhood it is no longer fits. The roles move independently.

    Args:
        arrays: n events.
        seed: of the choice.
    """
    n = len(arrays)
    rng = np.random.default_rng(seed)
    reach = max(1, min(MAX_SHIFT, n // 16))
    neighbours = np.full_like(arrays.neighbours, -1)
    status = np.full_like(arrays.neighbour_status, -1)
    for role in np.unique(arrays.neighbour_role):
        columns = np.flatnonzero(arrays.neighbour_role == role)
        source = np.arange(n) - rng.integers(1, reach + 1, n)
        rows = np.flatnonzero(source >= 0)
        part = slice(columns[0], columns[-1] + 1)
        neighbours[rows, part] = arrays.neighbours[source[rows], part]
        status[rows, part] = arrays.neighbour_status[source[rows], part]
    return replace(arrays, neighbours=neighbours, neighbour_status=status)


def share_an_entity(arrays: FraudArrays, events: np.ndarray) -> np.ndarray:
    """Connect the events of one window with the earlier ones that name an entity of theirs.

    Args:
        arrays: all events.
        events: (W,) event numbers in time order.

    Returns:
        (W, W) bool: [i, j] is true where j < i and both name the same entity, in any two roles of
        one kind.
    """
    tokens = np.asarray(arrays.entities[events])
    shared = np.zeros((len(tokens), len(tokens)), bool)
    for a, kind_a in enumerate(arrays.entity_kinds):
        for b, kind_b in enumerate(arrays.entity_kinds):
            if kind_a == kind_b:
                present = (tokens[:, a] != 0)[:, None]
                shared |= (tokens[:, a][:, None] == tokens[:, b][None]) & present
    return np.tril(shared, -1)
