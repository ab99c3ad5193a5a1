"""What a caller may cost: bytes of a body and of headers, time of a connection, a slot.

uvicorn bounds neither the size of the headers nor how long they may take to come, and closes a
connection only where one answer was given already (`timeout_keep_alive`); `BoundedProtocol` does.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, MutableMapping
from typing import Any, TypeVar

from core.serve.errors import BadRequest, Cancelled, Overloaded, ServeError, TooLarge

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
# How long a body may take: this, and as long again as its bytes take at the slowest rate.
BODY_TIMEOUT_S = 30.0
MIN_BYTES_PER_S = 2**16


class WrongEncoding(ServeError):
    """A compressed body: what it grows to is not known before."""

    status, code = 415, "bad_request"


class Slow(ServeError):
    """The body did not come in time."""

    status, code = 408, "bad_request"


class Budget:
    """Bytes of bodies that are held at a time, whoever sent them; memory ends somewhere."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    def take(self, size: int) -> None:
        """Hold so many more.

        Raises:
            Overloaded: they are too many.
        """
        if self._held + size > self._max_bytes:
            raise Overloaded(
                f"bodies of {self._held} bytes are held already, {self._max_bytes} are the most; "
                "come again",
                1.0,
            )
        self._held += size

    def give(self, size: int) -> None:
        """Hold so many less."""
        self._held -= size


def check_length(headers: Mapping[bytes, bytes], max_bytes: int) -> None:
    """What the head says of the body.

    Raises:
        TooLarge: it has more bytes.
        WrongEncoding: it is compressed.
    """
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
        raise WrongEncoding(
            f"Content-Encoding={headers[b'content-encoding'][:40].decode('latin-1')} is not taken; "
            "send the body as it is"
        )
    length = headers.get(b"content-length", b"0")
    if len(length) > 18 or not length.isdigit():
        raise BadRequest(f"Content-Length={length[:40].decode('latin-1')} is not a size")
    if int(length) > max_bytes:
        raise _too_large(int(length), max_bytes)


async def read_body(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    max_bytes: int,
    budget: Budget,
    timeout_s: float = BODY_TIMEOUT_S,
) -> bytes:
    """A request's body, refused as soon as it is known to be too much.

    Its bytes are taken from `budget`; the caller gives them back when it is done with them.

    Raises:
        TooLarge: it has, or says it will have, more bytes.
        WrongEncoding: it is compressed.
        Cancelled: the caller went away.
        Slow: it did not come in time.
        Overloaded: the budget is used up.
    """
    check_length(headers, max_bytes)
    # One message in nearly every case; only what comes in pieces needs a clock.
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        check_size(body, max_bytes)
        budget.take(len(body))
        return body
    return await _read_pieces(receive, message, max_bytes, budget, timeout_s)


async def _read_pieces(
    receive: Receive,
    message: MutableMapping[str, Any],
    max_bytes: int,
    budget: Budget,
    timeout_s: float,
) -> bytes:
    pieces: list[bytes] = []
    size = taken = 0
    until_s = asyncio.get_running_loop().time() + timeout_s
    try:
        async with asyncio.timeout_at(until_s) as clock:
            while message["type"] == "http.request":
                piece = message.get("body", b"")
                size += len(piece)
                if size > max_bytes:
                    raise _too_large(size, max_bytes)
                budget.take(len(piece))
                taken = size
                pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
                clock.reschedule(until_s + size / MIN_BYTES_PER_S)
                message = await receive()
        raise Cancelled("the caller went away")
    except BaseException as error:
        budget.give(taken)
        if isinstance(error, TimeoutError):
            raise Slow(
                f"of the body {size} bytes came in {timeout_s:g} s and more; send it at once"
            ) from None
        raise


def check_size(body: bytes, max_bytes: int) -> None:
    """A body that came without its length.

    Raises:
        TooLarge: it has more bytes.
    """
    if len(body) > max_bytes:
        raise _too_large(len(body), max_bytes)


def _too_large(size: int, max_bytes: int) -> TooLarge:
    return TooLarge(f"the body has {size} bytes or more, {max_bytes} are taken; send less at once")


async def until_disconnect(answer: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Wait for an answer as long as the caller does.

    The caller is watched only once the answer has to be waited for: one that is there at once
    costs no task. The answer's body must have been read.

    Raises:
        Cancelled: the caller went away; `answer` was cancelled.
    """
    watcher = _Watcher(receive)
    try:
        return await _watched(answer, watcher)
    except asyncio.CancelledError:
        if not watcher.is_gone:
            raise
        watcher.owner.uncancel()
        raise Cancelled("the caller went away") from None


class _Watcher:
    """Cancels the task that started it when the caller goes away."""

    def __init__(self, receive: Receive) -> None:
        self.is_gone = False
        self._receive = receive

    def start(self) -> None:
        owner = asyncio.current_task()
        assert owner is not None
        self.owner = owner
        self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self.owner.cancel()


@types.coroutine
def _watched(answer: Coroutine[Any, Any, T], watcher: _Watcher) -> Generator[Any, Any, T]:
    """Steps `answer` as its task would, so that the first step tells whether it has to wait."""
    try:
        waits_for = answer.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    watcher.start()
    try:
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - goes on into `answer`
                waits_for = answer.throw(error)
            else:
                waits_for = answer.send(None)
    except StopIteration as done:
        result = done.value
        return result
    finally:
        watcher.stop()
