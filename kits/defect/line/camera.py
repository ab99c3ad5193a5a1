"""A camera's process: when it is asked for a trigger's image, it writes it into the ring.

`python -m kits.defect.line.camera <descriptor> <json>`: started by `child.py` alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import numpy as np

from core.schedule.worker import enter
from kits.defect.line.answering import Answer, leave, serve
from kits.defect.line.ring import Ring
from kits.defect.line.sources.source import Source, open_source


class Camera:
    """A source and the ring that it writes to."""

    def __init__(self, source: Source, ring: Ring) -> None:
        self._source = source
        self._ring = ring

    def capture(self, request: Mapping[str, np.ndarray]) -> Answer:
        """Write the next frame into the slot that is named.

        Args:
            request: `ask`: trigger, which frame of the source, slot, until when (ns on the clock
                `time.monotonic_ns`).
        Returns:
            `told`: sequence, when captured and when written (ns); `name`: of the frame.
        Raises:
            ValueError, EOFError: there is no such frame; its words say why.
        """
        trigger, at, slot, latest_ns = request["ask"].tolist()
        if time.monotonic_ns() > latest_ns:
            raise ValueError("the camera was away when the part passed")
        shot = self._source.capture(at)
        captured_ns = time.monotonic_ns()
        head = self._ring.write(slot, trigger, shot.pixels, captured_ns)
        told = np.array([head.sequence, captured_ns, time.monotonic_ns()])
        return {"told": told, "name": np.frombuffer(shot.name.encode() or b" ", np.uint8)}


def main(arguments: list[str]) -> None:
    """Take over the connection, open the source, and answer."""
    connection, settings = enter(arguments)
    try:
        camera = Camera(open_source(settings["source"]), Ring.attach(settings["ring"]))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(str(error)) from error
    serve(connection, camera.capture)
    leave()


if __name__ == "__main__":
    main(sys.argv[1:])
