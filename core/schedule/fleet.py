"""The workers that should be there, with the models they should have; what dies is replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from core.schedule.devices import Gone, WorkerProcess, WorkerSpec
from core.schedule.job import Device, Model
from core.schedule.joining import Running
from core.schedule.kept import Kept
from edge.manifest import Tensor

LOG = logging.getLogger(__name__)
# Between two starts of a worker that does not come up.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# One that lived shorter than this did not really come up.
SHORT_LIFE_S = 1.0


@dataclass(frozen=True)
class LoadedModel:
    """What a worker says of a model it loaded and tested."""

    key: str
    backend: str  # facts of edge.backends.Facts
    runtime: str
    precision: str
    seconds: Mapping[int, float]  # rows -> duration of a warm run; empty: it could not be tried
    max_batch: int = 1  # rows; 1 also where the model turned out not to allow more
    obstacle: str = ""  # why it is not batched, if more was asked for
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    @classmethod
    def from_json(cls, key: str, content: Mapping[str, Any]) -> LoadedModel:
        """What a worker answered."""
        tensors = {
            name: tuple(Tensor(one["name"], one["dtype"], tuple(one["shape"])) for one in values)
            for name, values in content.items()
            if name in ("inputs", "outputs")
        }
        return cls(**{**content, **tensors, "key": key, "seconds": dict(content["seconds"])})


@dataclass(eq=False)
class Slot:
    """A worker that should be there; its process may be replaced."""

    spec: WorkerSpec
    device: Device
    process: WorkerProcess | None = None
    loaded: set[str] = field(default_factory=set)
    is_ready: bool = False  # it has all models and takes jobs
    ready_since: float = 0.0
    pause_s: float = 0.0  # before the next start
    restart: asyncio.Task[None] | None = None
    stop: asyncio.Task[None] | None = None  # the pool's, once it is to end
    running: Running | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class Entry:
    """A model in service."""

    model: Model
    file: Path  # our copy
    sha256: str
    num_jobs: int = 0
    is_closing: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class Fleet:
    """Slots and their processes; the pool is told when one takes jobs and when it does not."""

    on_up: Callable[[Slot], None]
    on_down: Callable[[Slot], None]  # it was up, and is gone
    on_death: Callable[[Slot, str], None]  # a little later: why it was that
    on_loaded: Callable[[Slot, LoadedModel], None]
    load_s: float
    slots: dict[str, Slot] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    is_closed: bool = False
    _kept: Kept | None = None
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def ready(self) -> list[Slot]:
        """Those that take jobs."""
        return [slot for slot in self.slots.values() if slot.is_ready]

    async def start(self, spec: WorkerSpec) -> None:
        """Add a worker; see `Pool.start_worker`."""
        slot = self.slots[spec.id] = Slot(spec, Device(spec.id, spec.kind))
        try:
            await self._bring_up(slot)
        except BaseException:
            self.slots.pop(spec.id, None)
            if slot.process is not None:
                slot.process.kill("it did not come up")
                await slot.process.wait()
            raise

    async def end(self, slot: Slot) -> None:
        """Take a worker out that computes nothing any longer."""
        slot.is_ready = False
        if slot.restart is not None:
            slot.restart.cancel()
            # Its process, where it was starting one, is gone when it has ended.
            await asyncio.wait([slot.restart])
        if slot.process is not None:
            await slot.process.stop()
        self.slots.pop(slot.spec.id, None)

    async def load(
        self,
        model: Model,
        file: Path,
        sha256: str,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[Entry, list[LoadedModel]]:
        """Load a model in all workers; the caller decides when it takes jobs.

        Raises:
            ValueError, OSError: as of `Pool.load`; it is unloaded everywhere again.
        """
        async with self._loading:
            if self.is_closed:
                raise ValueError(f"model {model.key!r} cannot be loaded: the pool is closed")
            if self._kept is None:
                self._kept = await asyncio.to_thread(Kept)
            copying = asyncio.create_task(asyncio.to_thread(self._kept.keep, file, sha256))
            try:
                if after is not None:
                    await after()
                copy = await copying
            except BaseException:
                await self._drop_copy(copying)
                raise
            entry = Entry(model, copy, sha256)
            told: list[LoadedModel] = []
            try:
                # Workers may come up meanwhile.
                while slots := [slot for slot in self.ready() if _lacks(slot, model)]:
                    told += await _all([self._load_in(slot, entry) for slot in slots])
            except BaseException as error:
                await self.unload(entry)
                if isinstance(error, Gone):
                    raise ValueError(f"{file.name} could not be loaded: {error}") from error
                raise
            self.entries[model.key] = entry
        return entry, told

    async def unload(self, entry: Entry) -> None:
        """Drop a model in the workers that have it, and our copy of its file."""
        key = entry.model.key
        self.entries.pop(key, None)
        asked = []
        for slot in self.slots.values():
            slot.loaded.discard(key)
            if slot.process is not None and not slot.process.is_gone:
                asked.append(slot.process.ask("unload", key=key))
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            # With a worker that is gone the model is, too.
            if isinstance(answer, BaseException) and not isinstance(answer, Gone):
                raise answer
        if self._kept is not None:
            await asyncio.to_thread(self._kept.drop, entry.file)

    async def close(self) -> None:
        """Remove the copies; the workers have been ended one by one."""
        async with self._loading:
            kept, self._kept = self._kept, None
        if kept is not None:
            await asyncio.to_thread(kept.close)

    async def _drop_copy(self, copying: asyncio.Task[Path]) -> None:
        """Whether it is written already or not."""
        await asyncio.wait([copying])
        if self._kept is not None and not copying.cancelled() and copying.exception() is None:
            await asyncio.to_thread(self._kept.drop, copying.result())

    async def _bring_up(self, slot: Slot) -> None:
        slot.loaded.clear()
        process = slot.process = await WorkerProcess.start(slot.spec, partial(self._on_end, slot))
        self._check_wanted(slot)
        # Models may be loaded or unloaded meanwhile.
        while missing := [e for e in self.entries.values() if _lacks(slot, e.model)]:
            entry = missing[0]
            try:
                await self._load_in(slot, entry)
            except ValueError:
                if self.entries.get(entry.model.key) is entry:
                    raise
        if process.is_gone:
            raise Gone(process.describe_end())
        self._check_wanted(slot)
        slot.is_ready, slot.ready_since = True, time.monotonic()
        self.on_up(slot)

    def _check_wanted(self, slot: Slot) -> None:
        if slot.stop is not None or self.is_closed:
            raise Gone(f"worker {slot.spec.id!r} was stopped before it was up")

    async def _load_in(self, slot: Slot, entry: Entry) -> LoadedModel:
        process, model = slot.process, entry.model
        assert process is not None
        try:
            async with asyncio.timeout(self.load_s):
                content = await process.ask(
                    "load",
                    key=model.key,
                    path=str(entry.file),
                    sha256=entry.sha256,
                    max_batch=model.max_batch,
                )
        except TimeoutError:
            reason = f"loading {model.key} took over {self.load_s} s"
            process.kill(reason)
            raise Gone(f"worker {slot.spec.id!r} was ended: {reason}") from None
        slot.loaded.add(model.key)
        loaded = LoadedModel.from_json(model.key, content)
        self.on_loaded(slot, loaded)
        return loaded

    def _on_end(self, slot: Slot, process: WorkerProcess) -> None:
        """A process is gone, for whatever reason."""
        if slot.process is not process or not slot.is_ready:
            # It was not up; whoever brings it up sees it as well.
            return
        slot.is_ready = False
        self.on_down(slot)
        if slot.stop is not None or self.is_closed:
            return
        is_young = time.monotonic() - slot.ready_since < SHORT_LIFE_S
        slot.pause_s = _longer(slot.pause_s) if is_young else 0.0
        slot.restart = asyncio.get_running_loop().create_task(self._replace(slot, process))

    async def _replace(self, slot: Slot, died: WorkerProcess) -> None:
        # Only then the exit code is known.
        await died.wait()
        self.on_death(slot, died.describe_end())
        while True:
            if slot.process is not None:
                await slot.process.wait()
            await asyncio.sleep(slot.pause_s)
            try:
                await self._bring_up(slot)
            except (Gone, ValueError, OSError) as error:
                LOG.warning("worker %r does not come up again: %s", slot.spec.id, error)
                slot.pause_s = _longer(slot.pause_s)
                if slot.process is not None:
                    slot.process.kill("it did not come up")
            else:
                return


async def _all(awaitables: Sequence[Any]) -> list[Any]:
    """Results of all; the first error only after all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _lacks(slot: Slot, model: Model) -> bool:
    is_meant = not model.kinds or slot.spec.kind in model.kinds
    return is_meant and model.key not in slot.loaded


def _longer(pause_s: float) -> float:
    return min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
