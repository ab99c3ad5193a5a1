"""Frames between a pool and its workers: a fixed head, a JSON layout, the raw bytes of arrays.

Nothing is ever unpickled. Layouts repeat from one request to the next, so both sides remember them.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
MAX_LAYOUT_BYTES = 1 << 20
MAX_BODY_BYTES = 4 << 30
MAX_AXES = 32
# Of one sendmsg, on Linux.
MAX_PARTS = 1024
# Of arrays in a body, and of the memory that Python and numpy hand out.
ALIGNMENT = 16
MAGIC = b"dkw1"
# magic, bytes of the layout, id of request and answer, bytes of the body, seconds it took
HEAD = struct.Struct("<4sIIQd")
_BUFFER_BYTES = 1 << 16
_REMEMBERED_BYTES = 4096
_NAMES = {np.dtype(name): name for name in DTYPES}
_PADDING = [bytes(size) for size in range(ALIGNMENT)]

Parts = list[Any]  # bytes and C-contiguous arrays, as sendmsg takes them
# name, dtype, shape
Spec = tuple[str, str, tuple[int, ...]]


@dataclass(slots=True)
class Frame:
    """One message; `content` may be shared with others and is only read."""

    id: int
    op: str
    content: Mapping[str, Any]
    arrays: dict[str, np.ndarray]
    seconds: float


@dataclass(frozen=True)
class _Layout:
    op: str
    content: Mapping[str, Any]
    arrays: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]  # ..., offset in the body
    num_bytes: int


def dtype_name(array: np.ndarray, name: str) -> str:
    """The name of an array's type.

    Raises:
        ValueError: it is not one of DTYPES in this machine's byte order.
    """
    found = _NAMES.get(array.dtype)
    if found is None:
        raise ValueError(
            f"array {name!r} has dtype={array.dtype}, not one of {', '.join(DTYPES)}, native order"
        )
    return found


def pack(
    op: str,
    id_: int,
    arrays: Mapping[str, Sequence[np.ndarray]],
    *,
    content: str = "{}",
    seconds: float = 0.0,
) -> Parts:
    """A frame in parts for `sendmsg`; no array is copied.

    Args:
        op: what it is about.
        id_: the answer carries the same.
        arrays: name -> pieces that lie behind each other along the first axis, of one type and of
            equal other axes; the receiver gets them as one array.
        content: a JSON object; with arrays, better one that repeats.
        seconds: what the answer took.
    Raises:
        ValueError: a type that is not one of DTYPES.
    """
    specs: list[Spec] = []
    pieces: Parts = []
    num_bytes = 0
    for name, given in arrays.items():
        first = given[0]
        shape: tuple[int, ...] = first.shape
        if len(given) > 1:
            shape = (sum(len(piece) for piece in given), *shape[1:])
        specs.append((name, dtype_name(first, name), shape))
        size = 0
        for piece in given:
            # Not for all: it would make an array without axes one of one axis.
            pieces.append(piece if piece.flags.c_contiguous else np.ascontiguousarray(piece))
            size += piece.nbytes
        if size % ALIGNMENT:
            pieces.append(_PADDING[-size % ALIGNMENT])
        num_bytes += size + -size % ALIGNMENT
    if num_bytes > MAX_BODY_BYTES:
        raise ValueError(f"{num_bytes} bytes of arrays are over {MAX_BODY_BYTES}; send fewer rows")
    layout = _encode(op, tuple(specs), content)
    return [HEAD.pack(MAGIC, len(layout), id_, num_bytes, seconds), layout, *pieces]


@lru_cache(maxsize=256)
def _encode(op: str, specs: tuple[Spec, ...], content: str) -> bytes:
    text = f'{{"op":{json.dumps(op)},"arrays":{json.dumps(specs)},"content":{content}}}'
    layout = text.encode()
    if len(layout) > MAX_LAYOUT_BYTES:
        raise ValueError(
            f"the layout of {op!r} has {len(layout)} bytes, over {MAX_LAYOUT_BYTES}; send less"
        )
    return layout


def _decode(layout: bytes) -> _Layout:
    """Check a layout; everything in it may be wrong.

    Raises:
        ValueError: it is not what `_encode` writes.
    """
    try:
        value = json.loads(layout)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a frame's layout is no JSON: {error}") from None
    if not isinstance(value, dict) or set(value) != {"op", "arrays", "content"}:
        raise ValueError(f"a frame's layout is {layout[:80]!r}, without op, arrays and content")
    op, arrays, content = value["op"], value["arrays"], value["content"]
    if not isinstance(op, str) or not isinstance(content, dict) or not isinstance(arrays, list):
        raise ValueError(
            f"a frame's layout is {layout[:80]!r}: op, arrays or content is of a wrong kind"
        )
    specs, offset, names = [], 0, set()
    for entry in arrays:
        name, dtype, shape = _check_spec(entry)
        specs.append((name, dtype, shape, offset))
        names.add(name)
        size = dtype.itemsize * math.prod(shape)
        offset += size + -size % ALIGNMENT
    if len(names) < len(specs):
        raise ValueError("a frame has two arrays of one name")
    return _Layout(op, content, tuple(specs), offset)


_decode_remembered = lru_cache(maxsize=256)(_decode)


def _check_spec(entry: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    if not isinstance(entry, list) or len(entry) != 3:
        raise ValueError(f"a frame's array is {entry!r:.80}, not name, dtype and shape")
    name, dtype, shape = entry
    if not isinstance(name, str) or dtype not in DTYPES:
        raise ValueError(
            f"a frame's array {name!r:.80} has dtype={dtype!r:.40}, not one of {DTYPES}"
        )
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_AXES
        or not all(type(size) is int and 0 <= size <= MAX_BODY_BYTES for size in shape)
    ):
        raise ValueError(
            f"a frame's array {name!r:.80} has shape={shape!r:.80}, which none can have"
        )
    return name, np.dtype(dtype), tuple(shape)


@dataclass(slots=True)
class Receiver:
    """Turns what a socket gives into frames; the socket may block or not."""

    socket: socket.socket
    max_body_bytes: int = MAX_BODY_BYTES
    _buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_BUFFER_BYTES)))
    _start: int = 0  # what of the buffer is not used yet
    _end: int = 0
    _layout: _Layout | None = None  # of the frame whose body is on its way
    _id: int = 0
    _seconds: float = 0.0
    _body: memoryview = field(default_factory=lambda: memoryview(b""))
    _received: int = 0  # of the body

    def receive(self) -> list[Frame]:
        """The frames that are complete after one read; often one, maybe none.

        Raises:
            EOFError: the other side is gone.
            BlockingIOError: the socket does not block, and has nothing.
            ValueError: this is not a frame; nothing further can be read.
        """
        if self._layout is not None and len(self._body) - self._received >= _BUFFER_BYTES:
            # A large body goes straight to where it will stay.
            count = self.socket.recv_into(self._body[self._received :])
            self._received += count
        else:
            if self._start:
                rest = self._end - self._start
                self._buffer[:rest] = self._buffer[self._start : self._end]
                self._start, self._end = 0, rest
            count = self.socket.recv_into(self._buffer[self._end :])
            self._end += count
        if not count:
            raise EOFError("the other side closed the connection")
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if self._layout is None and not self._read_head():
            return None
        layout, body = self._layout, self._body
        assert layout is not None
        start, wanted = self._start, layout.num_bytes - self._received
        size = min(self._end - start, wanted)
        if size:
            body[self._received : self._received + size] = self._buffer[start : start + size]
            self._start = start + size
            self._received += size
        if size < wanted:
            return None
        arrays = {
            name: np.ndarray(shape, dtype, body, offset)
            for name, dtype, shape, offset in layout.arrays
        }
        self._layout = None
        return Frame(self._id, layout.op, layout.content, arrays, self._seconds)

    def _read_head(self) -> bool:
        available = self._end - self._start
        if available < HEAD.size:
            return False
        magic, layout_bytes, id_, num_bytes, seconds = HEAD.unpack_from(self._buffer, self._start)
        if magic != MAGIC or layout_bytes > MAX_LAYOUT_BYTES or num_bytes > self.max_body_bytes:
            raise ValueError(
                f"a frame begins with {magic!r}, {layout_bytes} and {num_bytes} bytes; the other "
                "side is of another version, or the model is too large for one message"
            )
        if len(self._buffer) < HEAD.size + layout_bytes:
            grown = memoryview(bytearray(HEAD.size + MAX_LAYOUT_BYTES))
            grown[:available] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = grown, 0, available
        if available < HEAD.size + layout_bytes:
            return False
        start = self._start + HEAD.size
        content = bytes(self._buffer[start : start + layout_bytes])
        decode = _decode_remembered if layout_bytes <= _REMEMBERED_BYTES else _decode
        layout = decode(content)
        if layout.num_bytes != num_bytes:
            raise ValueError(
                f"a frame has {num_bytes} bytes of arrays, its layout {layout.num_bytes}"
            )
        self._start = start + layout_bytes
        self._layout, self._id, self._seconds, self._received = layout, id_, seconds, 0
        # What numpy hands out is not written with zeros first, but takes longer to get.
        small = num_bytes <= _BUFFER_BYTES
        self._body = (
            memoryview(bytearray(num_bytes)) if small else np.empty(num_bytes, np.uint8).data
        )
        return True


def send_all(connection: socket.socket, parts: Parts) -> None:
    """Send a frame on a socket that blocks."""
    while parts:
        parts = unsent(parts, connection.sendmsg(parts[:MAX_PARTS]))


def unsent(parts: Parts, sent: int) -> Parts:
    """What is left of a frame after some bytes of it were sent."""
    for at, part in enumerate(parts):
        size = part.nbytes if isinstance(part, np.ndarray | memoryview) else len(part)
        if sent < size:
            # An array of no bytes cannot be cast, and has nothing to be left.
            rest = memoryview(part).cast("B")[sent:]
            return [rest, *parts[at + 1 :]]
        sent -= size
    return []
