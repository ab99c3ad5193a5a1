"""The highest rate that a server answers with 99 % of its answers within a limit."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

Run = dict[str, Any]


def p99_ms(run: Run) -> float:
    """Median of the windows' p99: one pause of the machine is not the server's limit."""
    values = [window["p99"] for window in run["windows"] if window]
    return median(values) if len(values) == len(run["windows"]) else float("inf")


def holds(run: Run, limit_ms: float) -> bool:
    """All requests answered well, as fast as they came, in time."""
    return (
        run["ok"] == run["requests"]
        and run["ok_per_s"] >= 0.99 * run["rate"]
        and p99_ms(run) <= limit_ms
    )


class Probes:
    """Runs at different rates, each rate at most once; they are the points of a curve as well."""

    def __init__(self, probe: Callable[[float], Run]) -> None:
        self._probe = probe
        self.runs: dict[float, Run] = {}

    def at(self, rate: float) -> Run:
        """The run at a rate."""
        rate = float(f"{rate:.3g}")
        if rate not in self.runs:
            self.runs[rate] = self._probe(rate)
        return self.runs[rate]

    def search(self, capacity: float, limit_ms: float, steps: int) -> float:
        """Bisect below 1.2 times what a closed loop got; 0 if no rate tried holds."""
        low, high = 0.0, 1.2 * capacity
        for run in self.runs.values():
            if holds(run, limit_ms):
                low = max(low, run["rate"])
        for run in self.runs.values():
            if run["rate"] > low and not holds(run, limit_ms):
                high = min(high, run["rate"])
        for _ in range(steps):
            rate = (low + high) / 2
            if holds(self.at(rate), limit_ms):
                low = rate
            else:
                high = rate
        return max((r["rate"] for r in self.runs.values() if holds(r, limit_ms)), default=0.0)

    def points(self) -> list[dict[str, Any]]:
        """Rate against latency, for the curves."""
        return [
            {
                "rate": rate,
                "p50_ms": run["latency_ms"].get("p50"),
                "p99_ms": round(p99_ms(run), 3) if run["latency_ms"] else None,
                "ok_per_s": run["ok_per_s"],
                "failed": run["requests"] - run["ok"],
            }
            for rate, run in sorted(self.runs.items())
        ]
