"""A timer that wakes an event loop to the microsecond; its own ones count milliseconds."""

from __future__ import annotations

import ctypes
import os

CLOCK_MONOTONIC = 1  # that of time.perf_counter
TFD_TIMER_ABSTIME = 1
NANOSECONDS = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """Linux's timerfd: `fd` can be read when the time set is reached."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed; this needs Linux")
        self._value = _Itimerspec()
        self._reference = ctypes.byref(self._value)

    def set(self, when_s: float) -> None:
        """Wake at a time of `time.perf_counter`; what passed already wakes at once."""
        self._value.value.seconds, self._value.value.nanoseconds = divmod(
            max(1, int(when_s * NANOSECONDS)), NANOSECONDS
        )
        self._libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, self._reference, None)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
