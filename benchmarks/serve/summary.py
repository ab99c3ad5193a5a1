"""What a run of the load generator showed: latencies, answers by status, goodput."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
NUM_WINDOWS = 3  # a run is cut into these, so that its spread is seen
# Beside the statuses of HTTP
CLOSED, TIMEOUT, NEVER_SENT = -1, -2, -3
NAMES = {CLOSED: "connection closed", TIMEOUT: "timeout", NEVER_SENT: "never sent"}


@dataclass
class Record:
    """Of each request: due, sent and answered on `time.perf_counter`, and the status."""

    due: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What the client wrote down."""

    record: Record
    start: float  # of what counts
    late: list[float]  # how long after it was due each request was handed over, in seconds
    cpu_share: float  # of the client's own core
    num_waited: int  # requests that had to wait for a free connection
    num_reopened: int


def quantiles_ms(seconds: np.ndarray) -> dict[str, float]:
    """Of latencies in seconds, in ms."""
    if not len(seconds):
        return {}
    values = np.quantile(seconds, list(QUANTILES.values())) * 1e3
    found = dict(zip(QUANTILES, values.round(4).tolist(), strict=True))
    return {**found, "max": round(float(seconds.max()) * 1e3, 4)}


def summarise(run: Run, seconds: float, slo_ms: float, timeline: bool) -> dict[str, Any]:
    """What a run showed; requests due before its start or after its end are left out."""
    record, start = run.record, run.start
    due, answered = np.array(record.due), np.array(record.answered)
    status = np.array(record.status)
    status[status == 0] = TIMEOUT
    counted = (due >= start) & (due < start + seconds)
    ok = counted & (status == 200)
    latency = answered - due
    good = int((ok & (latency * 1e3 <= slo_ms)).sum())
    within = ok & (answered < start + seconds)
    found = {
        "started": start,
        "seconds": seconds,
        "requests": int(counted.sum()),
        "ok": int(ok.sum()),
        "ok_per_s": round(int(within.sum()) / seconds, 2),
        "goodput_per_s": round(good / seconds, 2),
        "slo_ms": slo_ms,
        "status": _count(status[counted]),
        "latency_ms": quantiles_ms(latency[ok]),
        "windows": _windows(start, seconds, due, latency, ok),
        "client": {
            "late_ms": quantiles_ms(np.array(run.late)),
            "cpu_share": round(run.cpu_share, 3),
            "waited_for_a_connection": run.num_waited,
            "reopened": run.num_reopened,
        },
    }
    if timeline:
        found["timeline"] = _timeline(start, seconds, slo_ms, due, latency, status)
    return found


def _count(status: np.ndarray) -> dict[str, int]:
    counts = Counter(status.tolist())
    return {NAMES.get(code, str(code)): number for code, number in sorted(counts.items())}


def _windows(
    start: float, seconds: float, due: np.ndarray, latency: np.ndarray, ok: np.ndarray
) -> list[dict[str, float]]:
    edges = start + np.linspace(0, seconds, NUM_WINDOWS + 1)
    return [
        quantiles_ms(latency[ok & (due >= low) & (due < high)]) for low, high in pairwise(edges)
    ]


def _timeline(
    start: float,
    seconds: float,
    slo_ms: float,
    due: np.ndarray,
    latency: np.ndarray,
    status: np.ndarray,
) -> list[dict[str, Any]]:
    """Each second by itself, by when the requests were due."""
    found = []
    for second in range(int(seconds)):
        inside = (due >= start + second) & (due < start + second + 1)
        ok = inside & (status == 200)
        found.append(
            {
                "status": _count(status[inside]),
                "good": int((ok & (latency * 1e3 <= slo_ms)).sum()),
                "latency_ms": quantiles_ms(latency[ok]),
            }
        )
    return found
