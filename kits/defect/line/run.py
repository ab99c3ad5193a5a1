"""A run of the line over a source: triggers at their pace, a bar on the terminal, then files."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.schedule.devices import Gone
from core.serve.watch import Watcher
from kits.defect.line.config import SIMULATOR, InspectConfig
from kits.defect.line.detect import DetectorConfig
from kits.defect.line.detector_file import find_detector
from kits.defect.line.files import write_files
from kits.defect.line.recipe import Recipe, read_recipe, write_recipe
from kits.defect.line.sources.folder import list_cameras
from kits.defect.line.sources.simulator import simulate
from kits.defect.line.sources.video import SUFFIXES, count_frames
from kits.defect.line.station import CameraConfig, Station, StationConfig

# Exit statuses beside 0; 2 is a mistake on the command line.
MISTAKE, SOME_UNINSPECTED = 2, 3
SIMULATOR_FPS, SIMULATOR_PARTS, SIMULATOR_FRAMES = 5.0, 100, 16
# Where nothing moves past a camera, a deadline only bounds what hangs.
FILES_DEADLINE_MS = 30_000.0
WATCH_S = 1.0
SHOW_S = 0.2


@dataclass(frozen=True)
class Feed:
    """A camera, and how many parts come before it."""

    camera: CameraConfig
    num_parts: int


def inspect_source(cfg: InspectConfig) -> int:
    """Run the line until the source ends, or SIGINT or SIGTERM; the exit status.

    Raises:
        ValueError, OSError, RuntimeError: it cannot begin; the message says why.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deepkits-line-")))
        recipe = _recipe(cfg)
        recipe_file = scratch / "recipe.zip"
        write_recipe(recipe, recipe_file)
        feeds = _feeds(cfg, recipe, recipe_file, scratch)
        station = Station(
            _station_config(cfg),
            [feed.camera for feed in feeds],
            find_detector(Path(cfg.run)),
            Path(cfg.output),
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(_run(cfg, station, feeds))
            except Gone as error:
                raise ValueError(f"{error}; the lines above say why") from error
    status = SOME_UNINSPECTED if station.tally.states["UNINSPECTED"] else 0
    write_files(station, cfg, status)
    _tell(station, status)
    return status


def _recipe(cfg: InspectConfig) -> Recipe:
    """The recipe with what the command line says otherwise."""
    recipe = read_recipe(Path(cfg.recipe))
    changes: dict[str, float] = {}
    if cfg.deadline_ms is not None:
        changes["deadline_ms"] = cfg.deadline_ms
    elif cfg.fps is None and cfg.source != SIMULATOR:
        changes["deadline_ms"] = FILES_DEADLINE_MS
    if cfg.audit_share is not None:
        changes["audit_share"] = cfg.audit_share
    return dataclasses.replace(recipe, **changes)


def _feeds(cfg: InspectConfig, recipe: Recipe, recipe_file: Path, scratch: Path) -> list[Feed]:
    if cfg.source == SIMULATOR:
        with _bar("frames are drawn") as bar:
            task = bar.add_task("", total=SIMULATOR_FRAMES)

            def on_frame() -> None:
                bar.advance(task)
                bar.refresh()

            frames, _ = simulate(recipe, SIMULATOR_FRAMES, scratch, on_frame=on_frame)
        return [
            Feed(
                CameraConfig(
                    f"camera-{number + 1}",
                    {"kind": "memory", "path": str(frames), "first": 2 * number},
                    recipe_file,
                ),
                cfg.parts or SIMULATOR_PARTS,
            )
            for number in range(cfg.cameras)
        ]
    source = Path(cfg.source)
    most = cfg.parts or sys.maxsize
    if source.is_dir():
        return [
            Feed(
                CameraConfig(
                    name, {"kind": "folder", "files": [str(file) for file in files]}, recipe_file
                ),
                min(most, len(files)),
            )
            for name, files in list_cameras(source).items()
        ]
    if source.suffix.lower() in SUFFIXES and source.is_file():
        camera = CameraConfig(source.stem, {"kind": "video", "path": str(source)}, recipe_file)
        return [Feed(camera, min(most, count_frames(source)))]
    raise ValueError(
        f"source={cfg.source} is no folder, no video ({', '.join(SUFFIXES)}) and not simulator; "
        "set source"
    )


def _station_config(cfg: InspectConfig) -> StationConfig:
    return StationConfig(
        slots=cfg.slots,
        detector=DetectorConfig(workers=cfg.workers, target=cfg.target),
        triage_workers=cfg.triage_workers,
        micro_net=cfg.micro_net,
        micro_net_score=cfg.micro_net_score,
        ledger_sync="full" if cfg.ledger_sync == "full" else "normal",
        max_pictures=cfg.max_pictures,
    )


async def _run(cfg: InspectConfig, station: Station, feeds: Sequence[Feed]) -> None:
    await station.start()
    try:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        fps = cfg.fps or (SIMULATOR_FPS if cfg.source == SIMULATOR else None)
        jobs = [
            asyncio.create_task(_feed(station, number, feed.num_parts, fps, len(feeds)))
            for number, feed in enumerate(feeds)
        ]
        helpers = [asyncio.create_task(_show(station, sum(feed.num_parts for feed in feeds)))]
        if cfg.watch:
            helpers.append(asyncio.create_task(_watch(station, find_detector(Path(cfg.run)))))
        stopping = asyncio.create_task(stop.wait())
        all_fed = asyncio.gather(*jobs)
        await asyncio.wait([stopping, all_fed], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, all_fed, *helpers[1:]):
            task.cancel()
        await asyncio.gather(stopping, all_fed, *helpers[1:], return_exceptions=True)
    finally:
        await station.stop()
    helpers[0].cancel()
    await asyncio.gather(helpers[0], return_exceptions=True)


async def _feed(
    station: Station, number: int, num_parts: int, fps: float | None, num_cameras: int
) -> None:
    """One camera's triggers: at a pace, or whenever there is room for one more frame."""
    if fps is None:
        slots = station.cameras[number].slots
        for _ in range(num_parts):
            await slots.wait_free()
            station.trigger(number)
        return
    # As cameras along a line: one after the other.
    start_s = time.monotonic() + number / num_cameras / fps
    for count in range(num_parts):
        due_s = start_s + count / fps
        await asyncio.sleep(due_s - time.monotonic())
        station.trigger(number, due_s)


async def _watch(station: Station, file: Path) -> None:
    async def changed(path: Path) -> None:
        try:
            await station.swap(path)
        except (ValueError, OSError):
            # The alarm says it; the old one stays in service.
            return

    await Watcher([file], changed).run(WATCH_S)


async def _show(station: Station, total: int) -> None:
    with _bar("parts") as bar:
        task = bar.add_task("", total=total)
        try:
            while True:
                _update(bar, task, station)
                await asyncio.sleep(SHOW_S)
        finally:
            _update(bar, task, station)


def _update(bar: Progress, task: object, station: Station) -> None:
    states = station.tally.states
    text = "  ".join(f"{name} {states[name]}" for name in ("OK", "NG", "UNINSPECTED"))
    if station.alarms.active:
        text += f"  [red]{len(station.alarms.active)} alarms[/red]"
    bar.update(task, completed=states.total(), description=text)
    bar.refresh()


def _bar(what: str) -> Progress:
    """On stderr; drawn when we say so, since a thread of its own would take time from the line."""
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
    )


def _tell(station: Station, status: int) -> None:
    states = station.tally.states
    counts = ", ".join(f"{states[name]} {name}" for name in ("OK", "NG", "UNINSPECTED"))
    print(f"{states.total()} parts: {counts}")
    if estimate := station.audit.estimate():
        high = "" if estimate[2] == inf else f", {estimate[1]:g} to {estimate[2]:g} with 95 %"
        print(f"escapes of the triage by audit: {estimate[0]:.3g}{high}")
    print(f"{station.output / 'report.html'}")
    if status:
        print(f"exit status {status}: parts were not inspected; the report says why",
              file=sys.stderr)  # fmt: skip
