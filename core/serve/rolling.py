"""A quantile of the last minute, at constant cost for each value."""

from __future__ import annotations

from array import array
from collections import deque
from math import ceil, exp, inf, log, nan

import numpy as np

# Log-spaced buckets of 2 %: what is reported is within 1 % of the true value.
_SMALLEST_S, _LARGEST_S, _GROWTH = 1e-5, 1e3, log(1.02)
_OFFSET = -log(_SMALLEST_S) / _GROWTH
_BUCKETS = int(log(_LARGEST_S) / _GROWTH + _OFFSET) + 1
_EMPTY = bytes(array("I").itemsize * _BUCKETS)


class RollingQuantile:
    """Counts values in slots of some seconds; the oldest slot makes room for the newest."""

    def __init__(self, window_s: float = 60.0, num_slots: int = 12) -> None:
        self._slot_s = window_s / num_slots
        # (when it begins, counts), the last one being filled
        self._slots: deque[tuple[float, array[int]]] = deque(maxlen=num_slots)
        self._counts = array("I")
        self._full_at = -inf

    def add(self, seconds: float, now: float) -> None:
        """Count a value; `now` never goes back."""
        if now >= self._full_at:
            begin = now - now % self._slot_s
            self._full_at = begin + self._slot_s
            self._counts = array("I", _EMPTY)
            self._slots.append((begin, self._counts))
        bucket = int(log(seconds) / _GROWTH + _OFFSET) if seconds > _SMALLEST_S else 0
        self._counts[bucket if bucket < _BUCKETS else -1] += 1

    def quantile(self, share: float, now: float) -> float:
        """The smallest value that `share` of the window's values do not exceed; NaN: no values."""
        oldest = now - now % self._slot_s - self._slot_s * (self._slots.maxlen or 0)
        live = [
            np.frombuffer(counts, dtype=np.uintc) for begin, counts in self._slots if begin > oldest
        ]
        if not live:
            return nan
        counts = np.sum(live, axis=0, dtype=np.int64).cumsum()
        bucket = int(np.searchsorted(counts, ceil(share * int(counts[-1]))))
        return exp((bucket + 0.5 - _OFFSET) * _GROWTH)
