"""One JSON line for each request, written by a thread so that a slow reader stops nothing."""

from __future__ import annotations

import atexit
import json
import os
import select
import threading
import time
from collections.abc import Callable

import orjson

FLUSH_S = 0.5
LIMIT_BYTES = 4 << 20
# A caller writes paths and names as long as he likes; a line stays readable.
_LONGEST_LINE, _LONGEST_VALUE = 2048, 256


class AccessLog:
    """Takes a request in about 1.5 us; lines that do not fit while nobody reads are dropped.

    Args:
        stream: file descriptor to write to; never closed.
        on_dropped: told how many lines were lost, from any thread.
    """

    def __init__(
        self,
        stream: int = 1,
        on_dropped: Callable[[int], None] | None = None,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self._stream = stream
        self._on_dropped = on_dropped
        self._limit_bytes = limit_bytes
        self._lines: list[bytes] = []
        self._bytes = 0  # in _lines and on the way out
        self._lock = threading.Lock()  # held for a few list operations only
        self._pending = threading.Event()
        self._closing = threading.Event()
        self._second, self._stamp = 0, ""
        self._writer = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._writer.start()
        atexit.register(self.close)

    def request(
        self,
        *,
        method: str,
        path: str,
        protocol: str,
        status: int,
        code: str,
        seconds: float,
        id: str = "",
        tenant: str = "",
        model: str = "",
        version: str = "",
        received_bytes: int = 0,
        sent_bytes: int = 0,
        queue_s: float = 0.0,
        batch: int = 0,
        trace: str = "",
    ) -> None:
        """A request was answered; `tenant` is the token's name, never the token."""
        line = _line(
            {
                "time": self._time(),
                "id": id,
                "tenant": tenant,
                "method": method,
                "path": path,
                "protocol": protocol,
                "model": model,
                "version": version,
                "status": status,
                "code": code,
                "received_bytes": received_bytes,
                "sent_bytes": sent_bytes,
                "seconds": int(seconds * 1e6) / 1e6,
                "queue_s": int(queue_s * 1e6) / 1e6,
                "batch": batch,
                "trace": trace,
            }
        )
        with self._lock:
            fits = self._bytes + len(line) <= self._limit_bytes
            if fits:
                self._bytes += len(line)
                self._lines.append(line)
        if not fits:
            self._lost(1)
        elif not self._pending.is_set():
            self._pending.set()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits; what nobody reads within `timeout_s`, or comes later, is lost."""
        atexit.unregister(self.close)
        self._limit_bytes = 0
        self._closing.set()
        self._pending.set()
        self._writer.join(timeout_s)

    def _time(self) -> str:
        """RFC 3339 with milliseconds, UTC."""
        second, millisecond = divmod(time.time_ns() // 1_000_000, 1000)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._stamp}{millisecond:03}Z"

    def _lost(self, lines: int) -> None:
        if self._on_dropped and lines:
            self._on_dropped(lines)

    def _write_all(self) -> None:
        while True:
            self._pending.wait()
            last = self._closing.wait(FLUSH_S)
            self._pending.clear()
            with self._lock:
                lines, self._lines = self._lines, []
            text = b"".join(lines)
            try:
                self._write(text)
            except OSError:  # the reader is gone for good; the service goes on
                self._lost(len(lines))
            with self._lock:
                self._bytes -= len(text)
            if last:
                return

    def _write(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            try:
                rest = rest[os.write(self._stream, rest) :]
            except BlockingIOError:  # someone made the pipe non-blocking
                select.select([], [self._stream], [], FLUSH_S)


def _line(entry: dict[str, object]) -> bytes:
    try:
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half of a surrogate pair, from a path that is not UTF-8
        line = b"\xff"
    # JSON lets DEL and the C1 controls pass, which a terminal obeys: escape all but plain ASCII.
    if not line.isascii() or b"\x7f" in line:
        line = json.dumps(entry).replace("\x7f", r"\u007f").encode() + b"\n"
    if len(line) > _LONGEST_LINE:
        short = {
            key: value[:_LONGEST_VALUE] if isinstance(value, str) else value
            for key, value in entry.items()
        }
        return line if short == entry else _line(short)
    return line
