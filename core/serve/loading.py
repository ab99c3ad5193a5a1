"""Models into service and out of it: at the start, and each time a file changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from core.schedule.devices import Gone
from core.schedule.job import Model
from core.schedule.pool import LoadedModel
from core.serve.catalogue import Catalogue, Version
from core.serve.config import ModelFile, ServeConfig
from core.serve.crew import Crew
from core.serve.metrics import Metrics
from core.serve.model import (
    Content,
    Description,
    choose_version,
    is_for_workers,
    open_inline,
    read_content,
)
from edge.pipeline import Pipeline

LOG = logging.getLogger(__name__)
# In this process, what may take longer goes to a thread: other requests would wait for it.
BLOCK_S = 1e-3
# A worker that died while loading says nothing of the model; three did not die by chance.
LOAD_TRIES = 3
START_S = 60.0


class Loader:
    """Loads versions, switches to them, takes the old ones out; of one event loop."""

    def __init__(
        self, config: ServeConfig, metrics: Metrics, catalogue: Catalogue, crew: Crew
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._catalogue = catalogue
        self._crew = crew
        self._current: dict[int, Version] = {}  # by place in `config.models`
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._starting: asyncio.Task[None] | None = None
        self._drains: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    async def load_all(self) -> None:
        """Load every configured file.

        Raises:
            ValueError: one cannot be served; the message names it.
        """
        if any(is_for_workers(file.path, self._config) for file in self._config.models):
            # Their processes start while the files are read.
            self._start_crew()
            await asyncio.sleep(0)
        for place, file in enumerate(self._config.models):
            content = await asyncio.to_thread(read_content, file.path)
            version = self._announce(file, content)
            try:
                await self._open(version, content)
            except ValueError as error:
                raise _named(file.path, error) from error
            self._current[place] = version
            self._catalogue.switch(version)

    async def changed(self, path: Path) -> None:
        """A file is another one; what fails is logged and the old version stays."""
        for name in {file.name for file in self._config.models if file.path == path}:
            try:
                await self.reload(name)
            except ValueError as error:
                LOG.warning("%s; the old version stays in service", error)
            except Exception:
                # Whatever it was: the next change is looked at again.
                LOG.exception("%s could not be reloaded; the old version stays in service", path)

    async def reload(self, name: str) -> None:
        """Read a model's files again; what changed is loaded beside the old, and switched to.

        Raises:
            ValueError: a file failed; what it replaces stays. The others are reloaded.
        """
        async with self._locks[name]:
            failures = []
            for place, file in enumerate(self._config.models):
                if file.name == name and not self._is_stopped:
                    try:
                        result = await self._reload(place, file)
                    except ValueError as error:
                        result = "rolled_back"
                        failures.append(error)
                    self._metrics.reload(name, result)
            if failures:
                raise failures[0]

    async def stop(self) -> None:
        """Begin no further reload; one under way is given up."""
        self._is_stopped = True
        for task in (self._starting, *self._drains):
            if task is not None:
                task.cancel()

    async def _reload(self, place: int, file: ModelFile) -> str:
        start = time.perf_counter()
        content = await asyncio.to_thread(read_content, file.path)
        self._catalogue.remove_failed(file)
        old = self._current[place]
        if content.sha256 == old.sha256:
            return "unchanged"
        new = self._announce(file, content)
        try:
            await self._open(new, content)
        except ValueError as error:
            self._catalogue.set_state(new, "failed", str(error))
            raise _named(file.path, error) from error
        except BaseException:
            self._catalogue.remove(new)
            raise
        self._current[place] = new
        self._catalogue.switch(new)
        seconds = time.perf_counter() - start
        LOG.warning("%s takes the place of %s after %.2f s", new.key, old.key, seconds)
        drain = asyncio.create_task(self._drain(old))
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)
        return "ok"

    async def _drain(self, old: Version) -> None:
        """Let its requests finish, then drop it."""
        self._catalogue.set_state(old, "draining")
        if old.pipeline is None:
            await self._crew.pool.unload(old.key)
        self._catalogue.remove(old)

    def _announce(self, file: ModelFile, content: Content) -> Version:
        taken = self._catalogue.versions(file.name)
        number = choose_version(content, file.version, taken)
        kind = file.path.suffix.removeprefix(".e").removeprefix(".")
        version = Version(file.name, number, file, content.sha256, Description(kind, (), (), 1))
        self._catalogue.add(version)
        return version

    async def _open(self, version: Version, content: Content) -> None:
        try:
            await self._open_where_it_belongs(version, content)
        except (OSError, ModuleNotFoundError) as error:
            # A full disk or a runtime that is not there is no end of what is served.
            raise ValueError(str(error)) from error

    async def _open_where_it_belongs(self, version: Version, content: Content) -> None:
        opened = await asyncio.to_thread(open_inline, content, self._config)
        if opened is not None:
            version.pipeline, told = opened
            version.block_rows = _block_rows(version.pipeline, told)
            inputs, outputs = version.pipeline.inputs, version.pipeline.outputs
            backend, max_batch, obstacle = told["backend"], told["max_batch"], told["obstacle"]
        else:
            loaded = await self._load_in_workers(version.key, content)
            inputs, outputs = loaded.inputs, loaded.outputs
            backend, max_batch, obstacle = loaded.backend, loaded.max_batch, loaded.obstacle
        if obstacle and self._config.max_batch > 1:
            LOG.warning("%s runs one request at a time: %s", version.key, obstacle)
        text = content.manifest.intended_use if content.manifest else ""
        platform = f"{version.description.platform}-{backend}"
        version.description = Description(platform, inputs, outputs, max_batch, text)

    def _start_crew(self) -> asyncio.Task[None]:
        if self._starting is None:
            self._starting = asyncio.create_task(self._crew.start())
        return self._starting

    async def _wait_for_workers(self) -> None:
        await asyncio.shield(self._start_crew())
        if not await self._crew.wait_ready(time.monotonic() + START_S):
            raise ValueError(f"no worker came up within {START_S:g} s; see what they logged")

    async def _load_in_workers(self, key: str, content: Content) -> LoadedModel:
        pool = self._crew.pool
        model = Model(key, self._config.max_batch, slo_s=self._config.slo_ms / 1e3)
        for attempt in range(LOAD_TRIES):
            try:
                told = await pool.load(
                    model, content.path, content.sha256, after=self._wait_for_workers
                )
            except ValueError as error:
                if attempt == LOAD_TRIES - 1 or not isinstance(error.__cause__, Gone):
                    raise
                LOG.warning("%s is loaded once more: %s", key, error)
                continue
            if told:
                return told[0]
            # All workers died just then: nobody has tried it.
            await pool.unload(key)
        raise ValueError(f"workers died {LOAD_TRIES} times while {key} was loaded; see their log")


def _named(path: Path, error: ValueError) -> ValueError:
    """The error, with the file it is about."""
    return ValueError(f"{path} cannot be served: {error}")


def _block_rows(pipeline: Pipeline, told: dict[str, Any]) -> int:
    """Rows that this process computes without holding up others; further open axes: none."""
    if any(isinstance(axis, str) for tensor in pipeline.inputs for axis in tensor.shape[1:]):
        return 0
    return max((rows for rows, seconds in told["seconds"] if seconds <= BLOCK_S), default=0)
