"""Worker processes as the pool sees them: started, spoken to, and known to be gone at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.schedule.wire import MAX_PARTS, Frame, Parts, Receiver, pack, unsent

ROOT = Path(__file__).parents[2]
START_S = 60.0
# Between a closed connection and a kill.
GRACE_S = 2.0
# Thread pools that are made when a library is imported, before anybody can say how large.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SEND_BYTES = 4 << 20
_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class WorkerSpec:
    """One worker process."""

    id: str
    kind: str  # devices of one kind cost the same
    threads: int = 1
    cores: tuple[int, ...] = ()  # it is pinned to these; empty: not pinned
    target: str = "auto"  # of a bundle; or the backend for an ONNX file: onnxruntime, openvino
    # What the process runs; another module enters as this one does (`worker.enter`) and answers
    # what it is asked, with settings and open files of its own.
    module: str = "core.schedule.worker"
    settings: Mapping[str, Any] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()


class Gone(Exception):
    """The process ended, or was ended, before it answered."""


class WorkerProcess:
    """A process and the connection to it; belongs to one event loop."""

    def __init__(self, spec: WorkerSpec, on_end: Callable[[WorkerProcess], None]) -> None:
        self.spec = spec
        self.reason = ""  # why it was ended, where we did it
        self.is_gone = False
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Callable[[Frame | None], None]] = {}
        self._last_id = 0
        self._unsent: deque[Parts] = deque()
        self._ready: asyncio.Future[Frame] = self._loop.create_future()
        self._waiting[0] = _into(self._ready)
        self._ended = asyncio.Event()
        self._grace_s = GRACE_S
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            # An image at once rather than in thirds, where the system allows so much.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        with theirs:
            try:
                self._process, self._stderr = _spawn(spec, theirs)
            except BaseException:
                ours.close()
                raise
        ours.settimeout(0.0)
        self._socket = ours
        self._receiver = Receiver(ours)
        self._line = b""
        self._loop.add_reader(ours, self._on_readable)
        self._loop.add_reader(self._stderr, self._pass_on)

    @classmethod
    async def start(
        cls, spec: WorkerSpec, on_end: Callable[[WorkerProcess], None], start_s: float = START_S
    ) -> WorkerProcess:
        """Start a process and wait until it answers.

        Args:
            spec: which.
            on_end: called once, when it is gone for whatever reason.
            start_s: how long it may take.
        Raises:
            Gone: it ended, or did not answer in time.
            OSError: it could not be started.
        """
        process = cls(spec, on_end)
        try:
            async with asyncio.timeout(start_s):
                await process._ready
        except BaseException as error:
            if isinstance(error, TimeoutError):
                process.kill(f"it did not answer within {start_s} s")
            elif not isinstance(error, Gone):
                process.kill("it is not wanted any longer")
            await process.wait()
            if isinstance(error, TimeoutError | Gone):
                raise Gone(process.describe_end()) from None
            raise
        return process

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it; None: it runs."""
        return self._process.returncode

    def send_run(
        self,
        key: str,
        arrays: Mapping[str, Sequence[np.ndarray]],
        on_answer: Callable[[Frame | None], None],
    ) -> None:
        """Run a model; `on_answer` gets its result or error, or None if the process is gone.

        Raises:
            ValueError: an array is of a type that is not sent.
        """
        if self.is_gone:
            self._loop.call_soon(on_answer, None)
            return
        id_ = self._next_id()
        parts = pack("run", id_, arrays, content=_key_content(key))
        self._waiting[id_] = on_answer
        self._send(parts)

    async def ask(self, op: str, **content: Any) -> Mapping[str, Any]:
        """Send a request without arrays and wait for what is answered.

        Raises:
            ValueError: the worker refused; in its own words.
            Gone: it ended before.
        """
        if self.is_gone:
            raise Gone(self.describe_end())
        id_ = self._next_id()
        future: asyncio.Future[Frame] = self._loop.create_future()
        self._waiting[id_] = _into(future)
        self._send(pack(op, id_, {}, content=json.dumps(content)))
        try:
            frame = await future
        except Gone:
            # Its exit code says more than that the connection is closed.
            await self.wait()
            raise Gone(self.describe_end()) from None
        finally:
            # Where the asker went away: a late answer is nobody's.
            if future.cancelled() and id_ in self._waiting:
                self._waiting[id_] = _ignore
        if frame.op == "error":
            raise ValueError(frame.content["message"])
        return frame.content

    def kill(self, reason: str) -> None:
        """End it at once; `on_end` is called as after any death."""
        if not self.is_gone:
            self.reason = reason
            self._process.kill()
            self._loop.call_soon(self._end)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Close the connection, upon which it ends; kill it if it does not."""
        self._grace_s = grace_s
        self._end()
        await self.wait()

    async def wait(self) -> None:
        """Until the process is gone and reaped."""
        await self._ended.wait()

    def describe_end(self) -> str:
        """For people: which worker, and why it is gone."""
        code = self._process.poll()
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = "closed its connection" if code is None else f"ended with code {code}"
        because = f": {self.reason}" if self.reason else ""
        return f"worker {self.spec.id!r} {how}{because}"

    def _next_id(self) -> int:
        self._last_id = self._last_id % 0xFFFF_FFFF + 1
        return self._last_id

    def _send(self, parts: Parts) -> None:
        if self._unsent:
            self._unsent.append(parts)
            return
        rest = self._send_some(parts)
        if rest:
            self._unsent.append(rest)
            self._loop.add_writer(self._socket, self._on_writable)

    def _send_some(self, parts: Parts) -> Parts:
        try:
            while parts:
                parts = unsent(parts, self._socket.sendmsg(parts[:MAX_PARTS]))
        except BlockingIOError:
            return parts
        except OSError:
            # Dead; not from in here, where the caller is still at work on what it sends.
            self._loop.call_soon(self._end)
            return []
        return parts

    def _on_writable(self) -> None:
        while self._unsent:
            rest = self._send_some(self._unsent.popleft())
            if rest:
                self._unsent.appendleft(rest)
                return
        if not self.is_gone:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            frames = self._receiver.receive()
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._end()
            return
        except ValueError as error:
            self.reason = str(error)
            self._process.kill()
            self._end()
            return
        for frame in frames:
            on_answer = self._waiting.pop(frame.id, _ignore)
            on_answer(frame)

    def _end(self) -> None:
        """The connection is gone, and with it the process."""
        if self.is_gone:
            return
        self.is_gone = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._unsent.clear()
        waiting, self._waiting = self._waiting, {}
        self._reaping = self._loop.create_task(self._reap(self._grace_s))
        for on_answer in waiting.values():
            on_answer(None)
        self._on_end(self)

    async def _reap(self, grace_s: float) -> None:
        pause_s, end = 0.001, self._loop.time() + grace_s
        while self._process.poll() is None:
            if self._loop.time() >= end:
                self._process.kill()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)
        if self._stderr >= 0:
            self._pass_on()
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1
        self._ended.set()

    def _pass_on(self) -> None:
        """What the worker or its libraries write, line by line, with its id before it."""
        try:
            data = os.read(self._stderr, _LINE_BYTES)
        except BlockingIOError:
            return
        *lines, self._line = (self._line + data).split(b"\n")
        if not data or len(self._line) > _LINE_BYTES:
            lines, self._line = [*lines, self._line], b""
        for line in filter(None, lines):
            print(f"[{self.spec.id}] {line.decode(errors='replace')}", file=sys.stderr, flush=True)
        if not data:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1


@lru_cache
def _key_content(key: str) -> str:
    return json.dumps({"key": key})


def _ignore(_: Frame | None) -> None:
    """The answer to a question that nobody waits for any longer."""


def _into(future: asyncio.Future[Frame]) -> Callable[[Frame | None], None]:
    def answer(frame: Frame | None) -> None:
        if future.done():
            return
        if frame is None:
            future.set_exception(Gone("the worker is gone"))
        else:
            future.set_result(frame)

    return answer


def _spawn(spec: WorkerSpec, connection: socket.socket) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and where its stdout and stderr can be read.

    In the thread of the event loop: the kernel ends a worker with the thread that started it.
    """
    settings = {
        "parent": os.getpid(),
        "id": spec.id,
        "kind": spec.kind,
        "threads": spec.threads,
        "cores": list(spec.cores),
        "target": spec.target,
        **spec.settings,
    }
    environment = dict(os.environ)
    environment.update(dict.fromkeys(THREAD_VARIABLES, str(spec.threads)))
    # This project's code and no other of that name; -P keeps the working folder out.
    paths = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    descriptor = connection.fileno()
    command = [sys.executable, "-P", "-m", spec.module, str(descriptor)]
    try:
        process = subprocess.Popen(
            [*command, json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            pass_fds=[descriptor, *spec.descriptors],
            env=environment,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return process, reading
