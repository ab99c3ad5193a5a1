"""The one schema of the fraud kit: time-ordered events in columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

# n events, E entity roles, C categorical columns, M numeric columns
COLUMNS = (
    "tx_id",
    "time_s",
    "entities",
    "amount",
    "categorical",
    "numeric",
    "label",
    "label_time_s",
    "pattern",
)
HASH_BYTES = 1 << 24


@dataclass(frozen=True)
class Events:
    """Events of one source, sorted by time and then by their original order.

    Columns are numpy arrays, often read-only and memory-mapped; slice them instead of copying.
    """

    tx_id: np.ndarray  # (n,) int64 or fixed-width bytes (UTF-8)
    time_s: np.ndarray  # (n,) int64 seconds since 1970, or of the event clock
    entities: np.ndarray  # (n, E) uint64 tokens; 0 = this event has no such entity
    entity_roles: tuple[str, ...]  # "account", "counterparty", then any others
    entity_kinds: tuple[str, ...]  # equal kind = same node space
    amount: np.ndarray  # (n,) float64 >= 0
    categorical: np.ndarray  # (n, C) uint64 tokens; 0 = missing
    categorical_names: tuple[str, ...]
    numeric: np.ndarray  # (n, M) float32, NaN = missing
    numeric_names: tuple[str, ...]
    label: np.ndarray  # (n,) int8: 0 legitimate, 1 fraud, -1 unknown
    label_time_s: np.ndarray  # (n,) int64: the source knew the label; a user adds the delay
    pattern: np.ndarray  # (n,) int8 index into pattern_names; for reports, NEVER an input
    pattern_names: tuple[str, ...]
    clock: Literal["seconds", "events"]  # "events": 1,000 events last one day
    fingerprint: str  # sha256 of all columns
    name: str

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.time_s)

    def columns(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in COLUMNS}


def fingerprint_columns(columns: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 over name, type, shape and bytes of all columns, read in pieces."""
    digest = hashlib.sha256()
    for name in COLUMNS:
        column = columns[name]
        digest.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
        row_bytes = max(1, column.dtype.itemsize * int(np.prod(column.shape[1:])))
        step = max(1, HASH_BYTES // row_bytes)
        for start in range(0, len(column), step):
            digest.update(np.ascontiguousarray(column[start : start + step]).tobytes())
    return digest.hexdigest()
