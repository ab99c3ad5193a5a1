"""uvicorn's connections with the bounds it lacks: bytes and time of what a caller sends and reads.

uvicorn with httptools takes headers of any size, waits for them for ever, drops only a connection
that had an answer before (`timeout_keep_alive`), and keeps an answer for as long as nobody reads
it. A few sockets that move a byte a minute then hold memory and file descriptors (slowloris). A
body's own bounds are the application's (`limits.read_body`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 2**16
MAX_HEADERS = 100
HEAD_TIMEOUT_S = 10.0
# Without a byte read of an answer that does not fit the socket's buffers.
READ_TIMEOUT_S = 30.0
# Of a body that was refused and still comes; then the connection is closed.
MAX_REFUSED_BYTES = 2**26
# Longer than the clients and proxies that keep connections, or they send into one that closes.
KEEP_ALIVE_S = 75
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
)


def server_settings() -> dict[str, Any]:
    """What `uvicorn.Config` needs for these bounds, and to say no more than it has to."""
    # It is built upon the protocol below.
    from core.serve.express import ExpressProtocol

    return {
        "http": ExpressProtocol,
        "ws": "none",
        "timeout_keep_alive": KEEP_ALIVE_S,
        "server_header": False,
        "access_log": False,
        # Whoever sends no HTTP gets 400; a line for each would let anybody fill the log.
        "log_level": "error",
        # Addresses in X-Forwarded-For are for whoever stands in front, not for this service.
        "proxy_headers": False,
    }


class BoundedProtocol(HttpToolsProtocol):
    """`uvicorn.Config(http=BoundedProtocol)`."""

    head_timeout_s = HEAD_TIMEOUT_S
    read_timeout_s = READ_TIMEOUT_S

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._num_head_bytes = 0
        self._num_refused_bytes = 0
        self._is_in_head = True
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection without a byte is one whose head does not come."""
        super().connection_made(transport)
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        self._got_all()
        super().connection_lost(exc)
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse; what does not end a head counts as part of it."""
        self._num_head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and not self.transport.is_closing():
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self._refuse()
            elif self._sending is None:
                self._expect_more()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._is_in_head = False
        self._got_all()
        is_long = self._num_head_bytes > MAX_HEAD_BYTES  # with what came behind it
        if len(self.headers) > MAX_HEADERS or (is_long and self._head_size() > MAX_HEAD_BYTES):
            self._refuse()
        elif not self.transport.is_closing():
            self.pass_head()

    def pass_head(self) -> None:
        """The head is within the bounds: the request begins."""
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What comes after the answer is thrown away, but not without end."""
        if self.transport.is_closing():
            return
        if self.cycle.response_complete:
            self._num_refused_bytes += len(body)
            if self._num_refused_bytes > MAX_REFUSED_BYTES:
                self.transport.close()
            elif self._sending is None:
                self._expect_more()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self.end_request()
        if not self.transport.is_closing():
            super().on_message_complete()

    def end_request(self) -> None:
        """What comes next is another one."""
        self._num_head_bytes = 0
        if self._sending is not None:
            self._got_all()

    def pause_writing(self) -> None:
        """The answer waits for its reader."""
        super().pause_writing()
        if self._reading is None:
            self._reading = self.loop.call_later(self.read_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It was read."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            content = (
                f'{{"error":"the head of the request has more than {MAX_HEAD_BYTES} bytes or '
                f'{MAX_HEADERS} lines; send less"}}'
            ).encode()
            self.transport.write(_TOO_LARGE % (len(content), content))
            self.transport.close()

    def _expect_more(self) -> None:
        self._sending = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _got_all(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
