"""Events to model inputs: one pass of the fold, plus the source's own columns.

Dimensions: n events, F fold features, M numeric columns, C categorical columns.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernels.fold import Fold, Labels, Rows
from kits.fraud.data.events import Events
from kits.fraud.data.progress import progress_bar, say

DAY_S = 86_400
CHUNK = 65_536
# Codes of a categorical column: its most frequent values; the rest share the last code.
MAX_CODES = 255
# Arrays beyond this share of the machine's memory live in a temporary file instead.
MEMORY_SHARE = 0.5
# The event clock counts events, so the time of day means nothing on it.
CALENDAR = ("second_of_day", "day_of_week")


@dataclass(frozen=True)
class Inputs:
    """What the models see of every event, as it stood before the event."""

    features: np.ndarray  # (n, F + M + C) float32, NaN where missing
    feature_names: tuple[str, ...]
    categorical: tuple[int, ...]  # which columns of `features` hold codes
    history: np.ndarray  # (n, 16) int32, see kernels.fold.Rows
    history_status: np.ndarray
    neighbours: np.ndarray  # (n, 32) int32
    neighbour_status: np.ndarray
    neighbour_role: np.ndarray  # (32,) int8
    visible_s: np.ndarray  # (n,) int64: from when on a label may be used
    facts: dict[str, Any]  # speed and memory of the fold


def visible_times(events: Events, label_delay_days: float) -> np.ndarray:
    """From when on each event's label may be used: (n,) int64 seconds, never before the event."""
    known_s = np.maximum(np.asarray(events.label_time_s), np.asarray(events.time_s))
    return known_s + round(label_delay_days * DAY_S)


def build_inputs(events: Events, label_delay_days: float) -> Inputs:
    """Fold all events in time order, in chunks, with a progress bar.

    Args:
        events: sorted by time.
        label_delay_days: labels enter the state only so long after the source knew them.
    """
    n = len(events)
    fold = Fold(events.entity_roles, events.entity_kinds)
    visible_s = visible_times(events, label_delay_days)
    labels = Labels.schedule(np.asarray(events.label), visible_s)
    keep = np.array(
        [events.clock == "seconds" or name not in CALENDAR for name in fold.feature_names]
    )
    codes = [_codes(events.categorical[:, c]) for c in range(events.categorical.shape[1])]
    names = [name for name, kept in zip(fold.feature_names, keep, strict=True) if kept]
    names += [*events.numeric_names, *events.categorical_names]
    first_code = len(names) - len(codes)
    features = _array((n, len(names)), np.float32)
    like = Rows.empty(0, 0)
    rings = {
        name: _array((n, column.shape[1]), column.dtype)
        for name, column in vars(like).items()
        if name != "features"
    }
    buffer = Rows.empty(min(CHUNK, n), len(fold.feature_names))
    used, started = 0, time.perf_counter()
    with progress_bar("fold", n) as advance:
        for start in range(0, n, CHUNK):
            part = slice(start, min(start + CHUNK, n))
            size = part.stop - part.start
            rows = buffer[:size]
            used += fold.run(
                events.time_s[part], events.entities[part], events.amount[part], labels[used:], rows
            )
            features[part, : keep.sum()] = rows.features[:, keep]
            features[part, keep.sum() : first_code] = events.numeric[part]
            for column, code in enumerate(codes, first_code):
                features[part, column] = code[part]
            for name, array in rings.items():
                array[part] = getattr(rows, name)
            advance(size)
    seconds = time.perf_counter() - started
    facts = {
        "events_per_second": round(n / max(seconds, 1e-9)),
        "state_mib": round(fold.memory_bytes / 2**20, 1),
        "bytes_per_account": fold.account_bytes,
        "accounts": fold.num_entities(0),
    }
    say(
        f"fold: {n:,} events in {seconds:.1f} s, {len(names)} features; "
        f"{facts['accounts']:,} accounts of {fold.account_bytes:,} bytes, "
        f"{facts['state_mib']} MiB of state in all"
    )
    return Inputs(
        features,
        tuple(names),
        tuple(range(first_code, len(names))),
        **rings,
        neighbour_role=fold.neighbour_role,
        visible_s=visible_s,
        facts=facts,
    )


def _codes(tokens: np.ndarray) -> np.ndarray:
    """Codes 0, 1, ... by falling frequency; rare values share one, 0 (missing) is NaN."""
    values, inverse, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    order = np.lexsort((values, -counts))
    rank = np.empty(len(values), np.float32)
    rank[order] = np.minimum(np.arange(len(values)), MAX_CODES - 1)
    rank[values == 0] = np.nan
    return rank[inverse]


def _array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Memory, or a temporary file that vanishes with the process when memory is short."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size < MEMORY_SHARE * memory or not size:
        return np.empty(shape, dtype)
    with tempfile.NamedTemporaryFile(dir=Path(tempfile.gettempdir())) as file:
        return np.memmap(file.name, dtype, "w+", shape=shape)
