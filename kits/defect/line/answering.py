"""What the line's own processes have in common: they answer requests in the order they came."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping

import numpy as np

from core.schedule.wire import Frame, Receiver, pack, send_all

Answer = Mapping[str, np.ndarray]


def serve(connection: socket.socket, answer: Callable[[Mapping[str, np.ndarray]], Answer]) -> None:
    """Answer until the other side is gone; what it refuses with is an answer, too.

    Args:
        connection: to whoever started this process.
        answer: arrays to arrays; raises ValueError, EOFError or OSError where it has none.
    """
    receiver = Receiver(connection)
    send_all(connection, pack("ready", 0, {}))
    while True:
        try:
            for frame in receiver.receive():
                send_all(connection, _answered(frame, answer))
        except (EOFError, ConnectionError):
            return


def _answered(frame: Frame, answer: Callable[[Mapping[str, np.ndarray]], Answer]) -> list:
    try:
        arrays = answer(frame.arrays)
    except (ValueError, EOFError, OSError) as error:
        return pack("error", frame.id, {}, content=json.dumps({"message": str(error)}))
    return pack("result", frame.id, {name: [array] for name, array in arrays.items()})


def leave() -> None:
    """End the process: drivers and runtimes may take their time, and nothing is left to save."""
    sys.stderr.flush()
    os._exit(0)
