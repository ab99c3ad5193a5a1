"""A worker process: loads models, runs batches, and is gone when its parent is.

`python -m core.schedule.worker <descriptor> <json>`: started by `core.schedule.devices` alone.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.schedule.wire import Frame, Receiver, pack, send_all

PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29


class Predictor(Protocol):
    """What a worker runs: a pipeline, or recorded times."""

    def predict(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        ...


class Worker:
    """Answers frames one after the other.

    Models are loaded and unloaded in a thread of their own, one after the other, so that a new
    version does not hold up the requests for the old one; all else happens in the main thread.
    """

    def __init__(self, connection: socket.socket, settings: Mapping[str, Any]) -> None:
        self._connection = connection
        self._settings = settings
        self._models: dict[str, Predictor] = {}
        self._sending = threading.Lock()
        self._changes: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._loader = threading.Thread(target=self._change, name="loader", daemon=True)

    def serve(self) -> None:
        """Until the other side is gone."""
        receiver = Receiver(self._connection)
        self._loader.start()
        self._answer("ready", 0)
        while True:
            try:
                frames = receiver.receive()
                for frame in frames:
                    self._handle(frame)
            except (EOFError, ConnectionError):
                return

    def _handle(self, frame: Frame) -> None:
        if frame.op == "run":
            self._run(frame)
        elif frame.op in ("load", "unload"):
            self._changes.put(frame)
        elif frame.op == "ping":
            self._answer("pong", frame.id)
        else:
            self._answer("error", frame.id, message=f"op={frame.op!r} is unknown to the worker")

    def _run(self, frame: Frame) -> None:
        model = self._models.get(frame.content["key"])
        if model is None:
            message = f"model {frame.content['key']!r} is not loaded in this worker"
            self._answer("error", frame.id, message=message)
            return
        try:
            start = time.perf_counter()
            outputs = model.predict(frame.arrays)
            seconds = time.perf_counter() - start
            arrays = {name: [value] for name, value in outputs.items()}
            parts = pack("result", frame.id, arrays, seconds=seconds)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is the answer
            self._answer("error", frame.id, message=_say(error))
            return
        with self._sending:
            send_all(self._connection, parts)

    def _change(self) -> None:
        from core.schedule.model_file import import_likely_runtime

        # While the parent still reads the file: its first model waits for these.
        import_likely_runtime(self._settings["target"])
        while True:
            frame = self._changes.get()
            if frame.op == "load":
                self._load(frame)
            else:
                self._models.pop(frame.content["key"], None)
                self._answer("unloaded", frame.id)

    def _load(self, frame: Frame) -> None:
        try:
            told = self._open(frame.content)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is the answer
            self._answer("error", frame.id, message=_say(error))
        else:
            # Nothing of it is garbage; a collection that looks at it all takes milliseconds.
            gc.freeze()
            self._answer("loaded", frame.id, **told)

    def _open(self, content: Mapping[str, Any]) -> dict[str, Any]:
        path = Path(content["path"])
        if path.suffix == ".json":
            from core.schedule.replay import Replay

            settings = self._settings
            replay = Replay.open(path, content["sha256"], settings["kind"], settings["id"])
            told = replay.describe(content["max_batch"])
            self._models[content["key"]] = replay
            return told
        from core.schedule.model_file import open_model
        from core.schedule.trial import describe

        settings = self._settings
        pipeline = open_model(path, content["sha256"], settings["target"], settings["threads"])
        told = describe(pipeline, content["max_batch"])
        self._models[content["key"]] = pipeline
        return told

    def _answer(self, op: str, id_: int, **content: Any) -> None:
        try:
            with self._sending:
                send_all(self._connection, pack(op, id_, {}, content=json.dumps(content)))
        except ConnectionError:
            # The parent is gone; the main thread sees it as well and ends.
            return


def _say(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    # For replayed devices, which sleep: a wake-up may otherwise come 50 us late.
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the line above.
        os._exit(1)


def enter(arguments: list[str]) -> tuple[socket.socket, dict[str, Any]]:
    """Begin as a process that `core.schedule.devices` started: its connection and settings."""
    settings = json.loads(arguments[1])
    die_with_parent(settings["parent"])
    # Ctrl+C and a service manager's stop go to the whole group; the parent decides when its workers
    # end, and its own end is theirs.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if settings["cores"]:
        # Before a runtime starts threads, which inherit it.
        os.sched_setaffinity(0, settings["cores"])
    return socket.socket(fileno=int(arguments[0])), settings


def main(arguments: list[str]) -> None:
    """Take over the connection and serve."""
    Worker(*enter(arguments)).serve()
    # Runtimes may take their time to end, or hang; there is nothing left to save.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
