"""How the search is set: tiles, batches, threads; CPU seconds beside wall time."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.medical.peers import WORST_CASE
from benchmarks.medical.study import Item, Study, print_table, spread
from benchmarks.medical.subject import forms, read_volume, scan_folder, subject
from kits.medical.geometry import Volume
from kits.medical.infer.coarse import find_heat
from kits.medical.infer.crops import FineGrid, look
from kits.medical.infer.lungs import find_lungs
from kits.medical.infer.network import OpenNetwork, open_network
from kits.medical.infer.settings import Settings

TILE_VOXELS = (1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000)
BATCHES = (1, 2, 4)
NUM_CROPS = 16
CROP = 64


def measure(study: Study) -> dict[str, Any]:
    """The coarse look by tile size; the fine look by batch; one request or one for each core."""
    made = subject(study)
    os.environ["DEEPKITS_HOME"] = str(made.home)
    volume = read_volume(scan_folder(study))
    found: dict[str, Any] = {}
    for form, (bundle, device) in forms(made).items():
        if form == "fp32":
            continue
        network = open_network(bundle, study.threads, device)
        streams = [open_network(bundle, 1, device) for _ in range(study.threads)]
        found[form] = {
            "tiles": _tiles(study, volume, network),
            "batches": _batches(study, volume, network),
            "streams": _streams(study, network, streams),
        }
    return found


def _tiles(study: Study, volume: Volume, network: OpenNetwork) -> dict[str, Any]:
    lungs = find_lungs(volume, threads=study.threads)
    found = {}
    for voxels in TILE_VOXELS:
        settings = network.settings(**WORST_CASE, max_tile_voxels=voxels, threads=study.threads)
        calls: list[int] = []

        class Counted:
            """The network, and what it was given."""

            def heat(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
                calls.append(inputs["image"].size)  # noqa: B023 (used within the loop's turn)
                return network.heat(inputs)

        counted: Any = Counted()
        rows = [
            _timed(lambda: find_heat(volume, lungs, counted, settings, lambda *_: None))  # noqa: B023
            for _ in range(study.rounds)
        ]
        number = len(calls) // study.rounds
        megavoxels = round(sum(calls) / study.rounds / 1e6, 2)
        found[str(voxels)] = {"tiles": number, "megavoxels": megavoxels, **_columns(rows)}
        study.say(f"tiles to {voxels / 1e6:g} M voxels: {found[str(voxels)]}")
    return found


def _batches(study: Study, volume: Volume, network: OpenNetwork) -> dict[str, Any]:
    settings: Settings = network.settings()
    fine = FineGrid(volume, settings.multiple)
    rng = np.random.default_rng(0)
    places = (0.25 + rng.random((NUM_CROPS, 3)) / 2) * volume.grid.shape
    windows = [fine.window(at, settings.crop_mm, settings.crop_halo) for at in places]
    found = {}
    for batch in BATCHES:
        one = replace(settings, batch=batch)
        rows = [
            _timed(lambda: list(look(network, fine, windows, one)))  # noqa: B023
            for _ in range(study.rounds + 1)
        ]
        found[str(batch)] = _columns(rows[1:])
        study.say(f"batches of {batch}: {found[str(batch)]}")
    return found


def _streams(study: Study, network: OpenNetwork, streams: list[OpenNetwork]) -> dict[str, Any]:
    """The same crops through one request on all cores, and through one on each core."""
    rng = np.random.default_rng(0)
    images = [
        rng.uniform(-1000, 400, (1, 1, CROP, CROP, CROP)).astype(np.float32)
        for _ in range(NUM_CROPS)
    ]

    def together() -> None:
        for image in images:
            network({"image": image})

    def apart() -> None:
        with ThreadPoolExecutor(len(streams)) as pool:
            list(pool.map(lambda at: streams[at % len(streams)]({"image": images[at]}),
                          range(len(images))))  # fmt: skip

    found = {}
    for name, way in (("one request, all cores", together), ("one request a core", apart)):
        way()
        found[name] = _columns([_timed(way) for _ in range(study.rounds)])
        study.say(f"{name}: {found[name]}")
    return found


def _timed(way: Any) -> tuple[float, float]:
    started, cpu = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - started, time.process_time() - cpu


def _columns(rows: list[tuple[float, float]]) -> dict[str, Any]:
    return {"wall_s": spread([row[0] for row in rows]), "cpu_s": spread([row[1] for row in rows])}


def show(found: Mapping[str, Any]) -> None:
    """A table for each question."""
    for form, parts in found.items():
        if not isinstance(parts, Mapping) or "tiles" not in parts:
            continue
        for question, rows in parts.items():
            print_table(
                f"{form}: {question}",
                ("", "s", "CPU s", "M voxels"),
                [
                    [name, row["wall_s"]["median"], row["cpu_s"]["median"], row.get("megavoxels")]
                    for name, row in rows.items()
                ],
            )


ITEM = Item(measure, show)
