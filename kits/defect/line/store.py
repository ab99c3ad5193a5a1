"""Pictures of defects, written beside the line: a slow or full disk holds up no verdict."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

# Pictures that wait; each may be megabytes.
MAX_WAITING = 64


class Store:
    """A folder and the thread that writes to it."""

    def __init__(self, folder: Path, max_files: int, on_trouble: Callable[[str], None]) -> None:
        """Begin.

        Args:
            folder: made if it is not there.
            max_files: more than these are not written.
            on_trouble: called with why a picture was not written, and with "" when one is again;
                from any thread.
        Raises:
            OSError: the folder cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._left = max_files
        self._on_trouble = on_trouble
        self._is_failing = False
        self._queue: queue.Queue[tuple[str, np.ndarray] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()

    def keep(self, name: str, pixels: np.ndarray) -> str:
        """Have a grey picture written; its name in the folder, or "" if it will not be."""
        if self._left <= 0:
            return ""
        try:
            self._queue.put_nowait((name, pixels))
        except queue.Full:
            self._fail(f"{MAX_WAITING} pictures wait for the disk; {name} is left out")
            return ""
        self._left -= 1
        return name

    def close(self) -> None:
        """Write what waits."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            name, pixels = item
            part = self._folder / f".part-{name}"
            try:
                Image.fromarray(pixels).save(part, "PNG", compress_level=1)
                part.replace(self._folder / name)
            except OSError as error:
                part.unlink(missing_ok=True)
                self._fail(f"{name} cannot be written: {error}")
            else:
                if self._is_failing:
                    self._is_failing = False
                    self._on_trouble("")

    def _fail(self, what: str) -> None:
        self._is_failing = True
        self._on_trouble(what)
