"""Requests that need not wait are answered where they are parsed.

For a small model most of a request's time goes into what makes waiting possible: a task, an event,
messages between server and application. A request whose bytes came at once, for a model that runs
in this process, has nothing to wait for. All others go the usual way, with what is decoded already.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from core.serve.app import BEGUN, App
from core.serve.connection import BoundedProtocol
from core.serve.exchange import Exchange

STATUS_LINES = {
    each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus
}


class ExpressProtocol(BoundedProtocol):
    """`uvicorn.Config(http=ExpressProtocol)`; the application is an `App`."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._answers: App | None = self.app if isinstance(self.app, App) else None
        # Pieces of the body of a request whose head is not passed on yet.
        self._held: list[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        """Parse; a request that is not there as a whole goes the usual way."""
        super().data_received(data)
        if self._held is not None and not self.transport.is_closing():
            self._pass_on()

    def pass_head(self) -> None:
        """Hold a request back until its end is seen, if it may be answered at once."""
        if self._answers is not None and self._may_hold():
            self._held = []
        else:
            super().pass_head()

    def on_body(self, body: bytes) -> None:
        """Keep it, or pass it on."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """Answer, or pass on."""
        if self._held is not None:
            held, self._held = self._held, None
            body = held[0] if len(held) == 1 else b"".join(held)
            assert self._answers is not None
            path = self.url.partition(b"?")[0].decode("ascii")
            reply = self._answers.answer_now(path, self.headers, body)
            if not isinstance(reply, Exchange | None):
                self._write(*reply)
                self.end_request()
                return
            super().pass_head()
            if reply is None:
                super().on_body(body)
            else:
                # Its body is decoded already.
                self.scope[BEGUN] = reply  # type: ignore[literal-required]
        super().on_message_complete()

    def _may_hold(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and (self.cycle is None or self.cycle.response_complete)
            and b"%" not in self.url
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def _pass_on(self) -> None:
        held, self._held = self._held, None
        super().pass_head()
        for piece in held or ():
            super().on_body(piece)

    def _write(self, status: int, content: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        parts = [STATUS_LINES[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", content)
        self.transport.write(b"".join(parts))
        self.on_response_complete()
