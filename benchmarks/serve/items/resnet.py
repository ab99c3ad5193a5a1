"""ResNet-50 in 8 bits: the service against one process that computes images one by one.

Both get the images as bytes. The reference is raw ASGI around the same session; the bare session
without any HTTP is told beside it. Equal threads, twice: one thread on one core for everything, and
two threads on two cores (the reference's session with two, the service with two workers of one).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.serve.models import build_resnet50_int8, cached
from benchmarks.serve.peers.session import open_session
from benchmarks.serve.process import SERVER_CORES
from benchmarks.serve.search import Probes, p99_ms
from benchmarks.serve.study import MODELS, Item, Study, Subject, load, print_table, spread, subject

ROUNDS, STEPS, SECONDS, BARE_RUNS = 2, 3, 10.0, 100
NUM_IMAGES = 8
SHARE = 0.9  # of its capacity at which the reference's p99 is taken
FACTOR = 2.0  # what ours may take of it
CONNECTIONS, CLOSED_CONNECTIONS = 64, 8
PROCESS = ("--isolation", "process", "--threads", "1")


@dataclass(frozen=True)
class Case:
    """Equal threads on equal cores."""

    threads: int
    cores: Sequence[int]
    ours: tuple[str, ...]


CASES = {
    "one thread": Case(1, SERVER_CORES, (*PROCESS, "--min-workers", "1", "--max-workers", "1")),
    "two threads": Case(2, (0, 1), (*PROCESS, "--min-workers", "2", "--max-workers", "2")),
}
# The same file in another runtime that the service offers, and how far its outputs may lie off: it
# rounds 8-bit products in another way, which random weights do not forgive.
DEVICES = {"auto": 1e-5, "openvino": 0.1}


def _times(study: Study) -> tuple[int, int, float]:
    return (1, 1, 3.0) if study.quick else (study.rounds or ROUNDS, STEPS, SECONDS)


def _seconds(study: Study) -> float:
    rounds, steps, seconds = _times(study)
    one = (len(DEVICES) + 1) * (steps + 2) * (seconds + 2) + 30
    built = (MODELS / "resnet50_int8.onnx").exists()
    return rounds * len(CASES) * one + (0 if built else 100)


def _bare_ms(model: Subject, case: Case, runs: int) -> list[float]:
    """The session alone on its cores, image after image."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(case.cores))
    try:
        session = open_session(str(model.path), case.threads)
        times = []
        for turn in range(runs + 5):
            started = time.perf_counter()
            session.run(None, {model.given: model.samples[turn % len(model.samples)]})
            times.append((time.perf_counter() - started) * 1e3)
    finally:
        os.sched_setaffinity(0, allowed)
    return times[5:]


def _round(study: Study, model: Subject, case: Case) -> dict[str, Any]:
    _, steps, seconds = _times(study)
    common = {"connections": CONNECTIONS, "timeout_s": 5.0, "warmup_s": 1.0}
    bare = _bare_ms(model, case, 10 if study.quick else BARE_RUNS)
    (raw,), (ours,) = study.servers(("raw_asgi_binary",)), study.servers(("deepkits_binary",))
    requests = model.requests(raw)
    with model.served(raw, str(case.threads), cores=case.cores) as running:
        one = load(running, requests, seconds=seconds, connections=1)
        many = load(running, requests, seconds=seconds, connections=CLOSED_CONNECTIONS)
        capacity = max(one["ok_per_s"], many["ok_per_s"])
        reference = load(running, requests, rate=SHARE * capacity, seconds=seconds, **common)
        limit = FACTOR * p99_ms(reference)
        probes = Probes(lambda rate: load(running, requests, rate=rate, seconds=seconds, **common))
        raw_rate = probes.search(capacity, limit, steps)
    found: dict[str, Any] = {
        "bare_ms": {name: round(float(np.quantile(bare, q)), 2) for name, q in
                    (("p50", 0.5), ("p99", 0.99))},
        "bare_per_s": round(1e3 / float(np.median(bare)), 2),
        "raw_asgi_closed_loop_per_s": {"1 connection": one["ok_per_s"],
                                       f"{CLOSED_CONNECTIONS} connections": many["ok_per_s"]},
        "reference_per_s": round(capacity, 2),
        "reference_p99_ms": p99_ms(reference),
        "limit_ms": round(limit, 2),
        "raw_asgi_per_s": raw_rate,
    }  # fmt: skip
    for device in DEVICES:
        arguments = (*case.ours, "--device", device, "--slo-ms", f"{limit:.0f}")
        near = replace(model, tolerance=DEVICES[device])
        found[device] = _ours(near, ours, arguments, case, (steps, seconds, limit), common)
        found[device]["over_reference"] = round(found[device]["per_s"] / capacity, 3)
        found[device]["over_bare"] = round(found[device]["per_s"] / found["bare_per_s"], 3)
    return found


def _ours(
    model: Subject, server: Any, arguments: tuple[str, ...], case: Case,
    search: tuple[int, float, float], common: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    steps, seconds, limit = search
    requests = model.requests(server)
    with model.served(server, *arguments, cores=case.cores) as running:
        closed = load(running, requests, seconds=seconds, connections=CLOSED_CONNECTIONS)
        probes = Probes(lambda rate: load(running, requests, rate=rate, seconds=seconds, **common))
        rate = probes.search(closed["ok_per_s"], limit, steps)
    return {
        "closed_loop_per_s": closed["ok_per_s"],
        "per_s": rate,
        "p99_ms": p99_ms(probes.runs[rate]) if rate else None,
        "points": probes.points(),
    }


def _run(study: Study) -> dict[str, Any]:
    model = subject(cached(MODELS, "resnet50_int8", build_resnet50_int8), NUM_IMAGES)
    rounds, _, seconds = _times(study)
    cases: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for turn in range(rounds):
        for name, case in CASES.items():
            cases[name].append(_round(study, model, case))
            told = {device: cases[name][-1][device]["over_reference"] for device in DEVICES}
            study.say(f"round {turn + 1}, {name}: ours over the reference {told}")
    return {
        "model": "ResNet-50, static 8-bit scales (QDQ), random weights, 224 x 224 px",
        "body": "the image's bytes, 602 KB",
        "pinning": "one thread: server and worker on core 0; two threads: on both; client on 1",
        "loop": "closed: capacity, 1 and 8 connections; open, constant arrivals: p99 and rates",
        "rule": f"ours: the highest rate at p99 within {FACTOR:g} times the p99 of the reference "
        f"at {SHARE:.0%} of its capacity; over the reference: over its whole capacity",
        "seconds_a_probe": seconds,
        "quick": study.quick,
        "cases": {
            name: {
                "over_reference": {
                    device: spread([r[device]["over_reference"] for r in runs], 3)
                    for device in DEVICES
                },
                "over_bare": {
                    device: spread([r[device]["over_bare"] for r in runs], 3) for device in DEVICES
                },
                "rounds": runs,
            }
            for name, runs in cases.items()
        },
    }


def _show(found: dict[str, Any]) -> None:
    rows = []
    for name, case in found["cases"].items():
        for device in DEVICES:
            last = case["rounds"][-1]
            rows.append(
                [
                    f"{name}, device {device}",
                    last["bare_per_s"],
                    last["reference_per_s"],
                    last["reference_p99_ms"],
                    last[device]["per_s"],
                    last[device]["p99_ms"],
                    case["over_reference"][device]["median"],
                ]
            )
    columns = ("", "bare/s", "raw ASGI/s", "its p99 ms", "ours/s", "p99 ms", "ours over raw")
    print_table("ResNet-50 int8", columns, rows)


ITEM = Item(_seconds, _run, _show)
