"""Whether the service's memory grows with the requests it answers."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from benchmarks.serve.models import build_tabular, cached
from benchmarks.serve.process import Running
from benchmarks.serve.study import MODELS, Item, Study, load, print_table, subject

# Requests in all, per second, and how many of them are no longer warm-up
INLINE = (1_000_000, 3000.0)
WORKERS = (200_000, 1000.0)
WARM = 0.2
SAMPLE_S = 1.0
SEGMENT_S = 60.0
# Of Student's distribution, two-sided 95 %, by degrees of freedom; beyond: the normal one's
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


def _cases(study: Study) -> dict[str, tuple[int, float, tuple[str, ...]]]:
    scale = 0.02 if study.quick else 1.0
    return {
        "inline": (int(INLINE[0] * scale), INLINE[1], ("--isolation", "inline")),
        "in a worker": (int(WORKERS[0] * scale), WORKERS[1], ("--isolation", "process")),
    }


def _seconds(study: Study) -> float:
    return sum(number / rate + 10 for number, rate, _ in _cases(study).values())


class Sampler(threading.Thread):
    """Resident memory of each process of a server, once a second."""

    def __init__(self, running: Running) -> None:
        super().__init__(daemon=True)
        self.running = running
        self.samples: list[tuple[float, dict[int, float]]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_S):
            self.samples.append((time.perf_counter(), self.running.rss_mib()))


def slope_bytes(at: np.ndarray, rss_mib: np.ndarray, blocks: int = 8) -> dict[str, float]:
    """Bytes a request, with a 95 % interval: a line through the means of blocks.

    Neighbouring samples of one process depend on each other, means of long blocks hardly do.
    """
    parts = np.array_split(np.arange(len(at)), min(blocks, len(at)))
    x = np.array([at[part].mean() for part in parts])
    y = np.array([rss_mib[part].mean() for part in parts]) * 2**20
    x = x - x.mean()
    slope = float((x * y).sum() / (x * x).sum())
    rest = y - y.mean() - slope * x
    freedom = len(x) - 2
    error = float(np.sqrt((rest * rest).sum() / freedom / (x * x).sum()))
    half = STUDENT[min(freedom, len(STUDENT)) - 1] * error
    return {"slope": round(slope, 4), "low": round(slope - half, 4), "high": round(slope + half, 4)}


def _measure(study: Study, arguments: tuple[str, ...], number: int, rate: float) -> dict[str, Any]:
    model = subject(cached(MODELS, "tabular", build_tabular))
    (server,) = study.servers(("deepkits_json",)) or _none()
    requests, failed, answered = model.requests(server), 0, 0
    with model.served(server, *arguments) as running:
        begun = time.perf_counter()
        sampler = Sampler(running)
        sampler.start()
        spans = []  # (start, end, answered before, answered after)
        while answered < number:
            seconds = min(SEGMENT_S, (number - answered) / rate)
            before, start = answered, time.perf_counter()
            run = load(running, requests, rate=rate, seconds=seconds, warmup_s=0, timeout_s=5)
            answered += run["requests"]
            failed += run["requests"] - run["ok"]
            spans.append((start, time.perf_counter(), before, answered))
            study.say(f"{answered} requests, {failed} failed: {_told(running)}")
        sampler.ended.set()
        sampler.join()
        processes = _by_process(sampler.samples, spans, number)
        first = running.process.pid
    server_row = processes.pop(first)
    return {
        "requests": answered,
        "failed": failed,
        "rate": rate,
        "seconds": round(time.perf_counter() - begun, 1),
        "server": server_row,
        "others": list(processes.values()),
    }


def _none() -> tuple[Any]:
    raise ValueError("this item measures deepkits_json; leave --only out")


def _told(running: Running) -> str:
    return ", ".join(f"{mib:.1f} MiB" for mib in running.rss_mib().values())


def _by_process(
    samples: list[tuple[float, dict[int, float]]],
    spans: list[tuple[float, float, int, int]],
    number: int,
) -> dict[int, dict[str, Any]]:
    """Slope after the warm-up, of each process that was there all the time."""
    starts = np.array([edge for span in spans for edge in span[:2]])
    counts = np.array([count for span in spans for count in span[2:]], float)
    times = np.array([when for when, _ in samples])
    at = np.interp(times, starts, counts)
    warm = at >= WARM * number
    found = {}
    for pid in sorted(set.intersection(*(set(rss) for _, rss in samples))):
        rss = np.array([each[pid] for _, each in samples])
        found[pid] = {
            "rss_mib_first": round(float(rss[0]), 2),
            "rss_mib_after_warm_up": round(float(rss[warm][0]), 2),
            "rss_mib_last": round(float(rss[-1]), 2),
            "bytes_a_request": slope_bytes(at[warm], rss[warm]),
        }
    return found


def _run(study: Study) -> dict[str, Any]:
    return {
        "model": "MLP 32-64-64-2, JSON",
        "rule": f"resident memory each second; a line through means of blocks after the first "
        f"{WARM:.0%} of the requests, with its 95 % interval",
        "quick": study.quick,
        **{
            name: _measure(study, arguments, number, rate)
            for name, (number, rate, arguments) in _cases(study).items()
        },
    }


def _show(found: dict[str, Any]) -> None:
    rows = []
    for name in _cases(Study()):
        case = found[name]
        for who, row in [("server", case["server"]), *(("worker", r) for r in case["others"])]:
            slope = row["bytes_a_request"]
            interval = f"{slope['slope']} ({slope['low']} to {slope['high']})"
            cells = row["rss_mib_first"], row["rss_mib_after_warm_up"], row["rss_mib_last"]
            rows.append([f"{name}: {who}", case["requests"], case["failed"], *cells, interval])
    columns = ("", "requests", "failed", "first MiB", "warm MiB", "last MiB", "bytes/request")
    print_table("Resident memory", columns, rows)


ITEM = Item(_seconds, _run, _show)
