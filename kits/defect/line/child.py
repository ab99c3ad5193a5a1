"""A process of the line that should be there: asked in arrays, replaced when it dies or hangs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import numpy as np

from core.schedule.devices import Gone, WorkerProcess, WorkerSpec
from core.schedule.wire import Frame

LOG = logging.getLogger(__name__)
# Between two starts of a process that does not come up.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# One that lived shorter than this did not really come up.
SHORT_LIFE_S = 1.0
LOOK_S = 0.25


class Child:
    """One process and those that take its place; belongs to one event loop."""

    def __init__(
        self, spec: WorkerSpec, on_change: Callable[[str, bool, str], None], hang_s: float
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            spec: which.
            on_change: called with its id, whether it is there now, and why.
            hang_s: one that has not answered for so long is ended.
        """
        self.spec = spec
        self._on_change = on_change
        self._hang_s = hang_s
        self._process: WorkerProcess | None = None
        self._asked: dict[int, float] = {}  # what is not answered yet -> when it was asked
        self._count = 0
        self._is_wanted = True
        self._care: asyncio.Task[None] | None = None
        self._died = asyncio.Event()
        self._up_since_s = 0.0
        self._pause_s = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return None if self._process is None or self._process.is_gone else self._process.pid

    async def start(self) -> None:
        """Start it, and keep it there from then on.

        Raises:
            Gone: it ended before it was ready; it has said why on stderr.
        """
        self._process = await WorkerProcess.start(self.spec, self._on_end)
        self._up_since_s = time.monotonic()
        self._care = asyncio.create_task(self._keep())

    def ask(
        self, numbers: np.ndarray, on_answer: Callable[[Frame | None], None] = lambda _: None
    ) -> asyncio.Future[Mapping[str, np.ndarray]]:
        """Ask for something; what comes of it may be left alone.

        Args:
            numbers: the request.
            on_answer: called with the answer, or None if the process died, also where nobody
                waits for the future any longer.
        Returns:
            arrays; or ValueError, in the words of the process; or Gone.
        """
        future: asyncio.Future[Mapping[str, np.ndarray]]
        future = asyncio.get_running_loop().create_future()
        number = self._count = self._count + 1

        def answer(frame: Frame | None) -> None:
            self._asked.pop(number, None)
            on_answer(frame)
            if future.done():
                return
            if frame is None:
                future.set_exception(Gone(f"{self.spec.id} died"))
            elif frame.op == "error":
                future.set_exception(ValueError(frame.content["message"]))
            else:
                future.set_result(frame.arrays)

        process = self._process
        if process is None or process.is_gone:
            on_answer(None)
            future.set_exception(Gone(f"{self.spec.id} is not there; it is being replaced"))
        else:
            self._asked[number] = time.monotonic()
            process.send_run("ask", {"ask": [numbers]}, answer)
        return future

    async def stop(self) -> None:
        """End it."""
        self._is_wanted = False
        if self._care is not None:
            self._care.cancel()
            await asyncio.gather(self._care, return_exceptions=True)
        if self._process is not None:
            await self._process.stop()

    def _on_end(self, process: WorkerProcess) -> None:
        if process is self._process:
            self._died.set()

    async def _keep(self) -> None:
        """Replace it whenever it is gone, and end it when it hangs."""
        while self._is_wanted:
            try:
                await asyncio.wait_for(self._died.wait(), LOOK_S)
            except TimeoutError:
                self._end_hung()
            else:
                await self._replace()

    def _end_hung(self) -> None:
        # They are answered in order: the first is the oldest.
        oldest = next(iter(self._asked.values()), None)
        if oldest is not None and self._process is not None:
            waited_s = time.monotonic() - oldest
            if waited_s > self._hang_s:
                self._process.kill(f"it has not answered for {waited_s:.1f} s")

    async def _replace(self) -> None:
        self._died.clear()
        process = self._process
        assert process is not None
        is_young = time.monotonic() - self._up_since_s < SHORT_LIFE_S
        self._pause_s = _longer(self._pause_s) if is_young else 0.0
        # Only then the exit code is known.
        await process.wait()
        self._on_change(self.spec.id, False, process.describe_end())  # noqa: FBT003
        while True:
            await asyncio.sleep(self._pause_s)
            try:
                self._process = await WorkerProcess.start(self.spec, self._on_end)
            except (Gone, OSError) as error:
                self._pause_s = _longer(self._pause_s)
                LOG.warning("%s does not come up again: %s", self.spec.id, error)
                continue
            self._up_since_s = time.monotonic()
            self._on_change(self.spec.id, True, "it was replaced")  # noqa: FBT003
            if self._process.is_gone:
                # Between its start and the line above, when it was not ours yet.
                self._died.set()
            return


def _longer(pause_s: float) -> float:
    return min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
