"""Files that may change while they are served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from core.serve.model import signature

# A file that was just written may still be written to.
QUIET_S = 0.2


class Watcher:
    """Tells of each change of a file once, when nothing was written to it for `QUIET_S`."""

    def __init__(self, files: Iterable[Path], changed: Callable[[Path], Awaitable[None]]) -> None:
        self._told = {file: signature(file) for file in files}
        self._seen = dict(self._told)
        self._changed = changed

    async def run(self, watch_s: float) -> None:
        """Look every `watch_s`, for ever."""
        while True:
            await asyncio.sleep(watch_s)
            if self.look():
                await asyncio.sleep(min(QUIET_S, watch_s))
                await asyncio.gather(*(self._changed(file) for file in self.take()))

    def look(self) -> bool:
        """Read what the file system says; whether a file is another than the one told of."""
        self._seen = {file: signature(file) for file in self._told}
        return self._seen != self._told

    def take(self) -> list[Path]:
        """Files that changed and have been at rest since `look`; each is told once."""
        found = []
        for file, told in self._told.items():
            now = signature(file)
            # A file that is gone stays in service until there is another.
            if now and now not in (told, ()) and now == self._seen[file]:
                self._told[file] = now
                found.append(file)
        return found
