"""How soon another worker is wanted and there when load steps up, and whether it stays calm."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from benchmarks.serve.models import build_convolutions, cached
from benchmarks.serve.process import Running, get
from benchmarks.serve.study import MODELS, Item, Study, load, print_table, spread, subject

CORES = (0, 1)
SCALE = (
    "--isolation", "process", "--auto-scale", "--min-workers", "1", "--max-workers", "2",
)  # fmt: skip
# Of what one worker computes: before the step, after it, and held constant
LOW, HIGH = 0.3, 1.3
CONSTANT = (0.8, 1.3)
STEPS, STEP_S, CONSTANT_S, CLOSED_S = 5, 20.0, 90.0, 10.0
POLL_S = 0.02
GAUGES = {
    "ready": re.compile(rb"^deepkits_workers ([0-9.e+]+)", re.MULTILINE),
    "wanted": re.compile(rb"^deepkits_workers_wanted ([0-9.e+]+)", re.MULTILINE),
}


def _times(study: Study) -> tuple[int, float, float, tuple[float, ...]]:
    if study.quick:
        return 1, 8.0, 8.0, (0.8,)
    return study.rounds or STEPS, STEP_S, CONSTANT_S, CONSTANT


def _seconds(study: Study) -> float:
    steps, step_s, constant_s, constant = _times(study)
    return CLOSED_S + 5 + steps * (1.5 * step_s + 6) + len(constant) * (constant_s + 6)


class Watch(threading.Thread):
    """When the number of workers wanted and ready changed, as the metrics tell it."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.changes: dict[str, list[tuple[float, int]]] = {name: [] for name in GAUGES}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(POLL_S):
            page = get(self.port, "/metrics")[1]
            now = time.perf_counter()
            for name, pattern in GAUGES.items():
                found = pattern.search(page)
                assert found, f"/metrics has no gauge of workers {name}"
                number, seen = int(float(found[1])), self.changes[name]
                if not seen or seen[-1][1] != number:
                    seen.append((now, number))

    def after(self, name: str, start: float, number: int) -> float | None:
        """Seconds from a time on until the gauge first showed a number."""
        times = [when for when, shown in self.changes[name] if when >= start and shown == number]
        return times[0] - start if times else None

    def count(self, start: float) -> int:
        """Changes of the number wanted since a time."""
        return sum(when >= start for when, _ in self.changes["wanted"][1:])


def _run(study: Study) -> dict[str, Any]:
    steps, step_s, constant_s, constant = _times(study)
    model = subject(cached(MODELS, "convolutions", build_convolutions))
    (server,) = study.servers(("deepkits_json",))
    requests = model.requests(server)
    common = {"connections": 256, "timeout_s": 10.0, "core": 1}
    with model.served(server, "--isolation", "process", "--max-workers", "1") as running:
        closed = load(running, requests, seconds=CLOSED_S, connections=4)
    capacity = closed["ok_per_s"]
    reactions: list[dict[str, float | None]] = []
    held = []
    # A fresh service each time: one that has just scaled down waits longer before it does again.
    for _ in range(steps):
        with model.served(server, *SCALE, cores=CORES) as running:
            reactions.append(_step(running, requests, capacity, step_s, common))
        study.say(f"step from {LOW} to {HIGH} of a worker: {reactions[-1]}")
    for share in constant:
        with model.served(server, *SCALE, cores=CORES) as running:
            held.append(_hold(running, requests, share, capacity, constant_s, common))
        study.say(f"constant load: {held[-1]}")
    return {
        "model": "12 convolutions, about 10 ms a row",
        "pinning": "server and workers on both cores, client on one of them",
        "one_worker_per_s": capacity,
        "step": f"from {LOW} to {HIGH} of what one worker computes",
        "reaction_s": {
            name: spread(values, 3) if (values := [r[name] for r in reactions if r[name]]) else None
            for name in GAUGES
        },
        "steps_without_reaction": sum(r["wanted"] is None for r in reactions),
        "constant": held,
        "quick": study.quick,
    }


def _step(
    running: Running, requests: list[bytes], capacity: float, step_s: float, common: dict[str, Any]
) -> dict[str, float | None]:
    """Low load, then at once high load; seconds until a second worker is wanted and ready."""
    watch = Watch(running.port)
    watch.start()
    load(running, requests, rate=LOW * capacity, seconds=step_s / 2, warmup_s=0, **common)
    # The generator needs a moment to start: the step is when its first request is due.
    run = load(running, requests, rate=HIGH * capacity, seconds=step_s, warmup_s=0, **common)
    watch.ended.set()
    watch.join()
    return {name: watch.after(name, run["started"], 2) for name in GAUGES}


def _hold(
    running: Running, requests: list[bytes], share: float, capacity: float, seconds: float,
    common: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    watch = Watch(running.port)
    watch.start()
    run = load(running, requests, rate=share * capacity, seconds=seconds, warmup_s=0, **common)
    watch.ended.set()
    watch.join()
    # What a new level of load asks for is not flapping; what comes after it is.
    settled = run["started"] + min(10.0, seconds / 2)
    return {
        "share_of_one_worker": share,
        "seconds": seconds,
        "changes": watch.count(run["started"]),
        "changes_after_10_s": watch.count(settled),
        "changes_a_minute": round(watch.count(run["started"]) / seconds * 60, 2),
        "failed": run["requests"] - run["ok"],
        "latency_ms": run["latency_ms"],
    }


def _show(found: dict[str, Any]) -> None:
    reaction = found["reaction_s"]
    rows = [
        [f"{found['step']}: {name}", values and values["median"], values and values["max"]]
        for name, values in reaction.items()
    ]
    print_table("Seconds until a second worker is ...", ("", "median", "max"), rows)
    rows = [
        [f"{row['share_of_one_worker']} for {row['seconds']:g} s"]
        + [row[key] for key in ("changes", "changes_a_minute", "failed")]
        + [row["latency_ms"].get("p99")]
        for row in found["constant"]
    ]
    columns = ("share of one worker", "changes", "a minute", "failed", "p99 ms")
    print_table("Constant load", columns, rows)


ITEM = Item(_seconds, _run, _show)
