"""Prometheus metrics of a service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from platform import python_version

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Info,
    ProcessCollector,
    generate_latest,
)

from core.serve import series
from core.serve.rolling import RollingQuantile
from edge.manifest import RUNTIME

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# 0.5 is the brief's limit of 500 ms; the rules count requests below it.
SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
WINDOW_S = 60.0
# Answered without trying: counted, but they say nothing about how long an answer takes.
REFUSED = frozenset(
    {"bad_request", "unauthorized", "not_found", "too_large", "overloaded", "not_ready"}
)
# Rows that exist from the first request on: `rate` does not see a row's first value.
EXPECTED = ("ok", "internal", "worker_lost", "deadline", "overloaded", "not_ready")
STATES = ("loading", "ready", "draining", "failed")
RESULTS = ("ok", "unchanged", "rolled_back")
# Whatever a caller writes where a model's name belongs.
UNKNOWN = "_unknown"
# How long the rows of a version that is gone, or of a worker that does nothing, are kept: several
# scrapes of the last values.
KEPT_S = 300.0

_Hot = tuple[series.Counter, series.Histogram | None, RollingQuantile | None]


class Metrics:
    """One registry of a service; cheap enough for each request (a few microseconds).

    All methods belong to the event loop, `log_dropped` aside. Labels stay few: names that no model
    has share one row, and a version's rows go some minutes after it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hot: dict[tuple[str, str, str, str], _Hot] = {}
        self._batches: dict[str, tuple[series.Histogram, series.Histogram, series.Histogram]] = {}
        self._states: dict[tuple[str, str], str] = {}
        self._gone: dict[tuple[str, str], float] = {}
        self._recent: dict[str, RollingQuantile] = {}
        self._seen: dict[str, float] = {}  # worker -> when it last computed
        self._waiting = 0
        self._dropping = threading.Lock()
        self._make_families()
        self._make_registry()

    def request(self, model: str, version: str, protocol: str, code: str, seconds: float) -> None:
        """A request was answered: protocol rest, binary, predict or grpc; code ok or an error's."""
        key = (model, version, protocol, code)
        answered, duration, recent = self._hot.get(key) or self._rows(*key)
        answered.value += 1
        if duration is not None:
            duration.observe(seconds)
        if recent is not None:
            recent.add(seconds, self._clock())

    def batch(
        self, model: str, rows: int, queue_s: Sequence[float], seconds: float, worker: str
    ) -> None:
        """A batch was computed (signature of Pool.on_batch: `model` is name@version)."""
        found = self._batches.get(model)
        if found is None:
            name, _, version = model.partition("@")
            sizes, durations, delays = (family.row(name, version) for family in self._of_batches)
            found = self._batches[model] = (sizes, durations, delays)
        sizes, durations, delays = found
        sizes.observe(float(rows))
        durations.observe(seconds)
        for waited in queue_s:
            delays.observe(waited)
        self._seen[worker] = self._clock()
        self._busy.row(worker).value += seconds

    def waiting(self, jobs: int) -> None:
        """How many requests wait."""
        self._waiting = jobs

    def workers(self, ready: int, wanted: int) -> None:
        """How many workers there are and should be."""
        self._workers.set(ready)
        self._wanted.set(wanted)

    def worker_death(self) -> None:
        """A worker died and is replaced."""
        self._deaths.row().value += 1

    def model(self, name: str, version: str, state: str) -> None:
        """A version changed its state; "gone" takes it out."""
        if state != "gone" and state not in STATES:
            raise ValueError(f"state={state!r} is not one of {', '.join(STATES)}, gone")
        if state == "gone":
            if self._states.pop((name, version), None):
                self._gone[name, version] = self._clock()
                for each in STATES:
                    self._state.remove(name, version, each)
        else:
            self._states[name, version] = state
            self._gone.pop((name, version), None)
            for each in STATES:
                self._state.labels(name, version, each).set(each == state)
            if name not in self._recent:
                self._recent[name] = RollingQuantile(WINDOW_S)
                self._latency.labels(name)
            for result in RESULTS:
                self._reloads.row(name, result)
        ready = {known for (known, _), now in self._states.items() if now == "ready"}
        self._ready.set(len(ready))

    def reload(self, model: str, result: str) -> None:
        """A hot reload ended: ok, unchanged or rolled_back."""
        self._reloads.row(self._known(model, "")[0], result).value += 1

    def log_dropped(self, lines: int) -> None:
        """Lines of the access log were lost; from any thread."""
        with self._dropping:
            self._dropped.row().value += lines

    def render(self) -> tuple[bytes, str]:
        """The page for Prometheus, and its content type."""
        now = self._clock()
        self._forget(now - KEPT_S)
        for name, recent in self._recent.items():
            self._latency.labels(name).set(1000 * recent.quantile(0.99, now))
        hot = "".join(line for family in self._families for line in family.lines())
        return hot.encode() + generate_latest(self._registry), CONTENT_TYPE

    def _known(self, model: str, version: str) -> tuple[str, str]:
        """The labels for what a caller named."""
        if (model, version) in self._states or (model, version) in self._gone:
            return model, version
        return (model, "") if model in self._recent else (UNKNOWN, "")

    def _rows(self, model: str, version: str, protocol: str, code: str) -> _Hot:
        labels = (*self._known(model, version), protocol)
        for expected in EXPECTED if labels[0] != UNKNOWN else ():
            self._requests.row(*labels, expected)
        tried = code not in REFUSED
        found = (
            self._requests.row(*labels, code),
            self._duration.row(*labels) if tried else None,
            self._recent.get(model) if tried else None,
        )
        if labels == (model, version, protocol):
            self._hot[model, version, protocol, code] = found
        return found

    def _forget(self, before: float) -> None:
        """Drop the rows of what has been gone, or idle, since then."""
        for key in [key for key, since in self._gone.items() if since < before]:
            del self._gone[key]
            self._drop(*key)
            if not any(name == key[0] for name, _ in (*self._states, *self._gone)):
                self._drop(key[0])
                del self._recent[key[0]]
                self._latency.remove(key[0])
                self._reloads.drop(key[0])
        for worker in [worker for worker, since in self._seen.items() if since < before]:
            del self._seen[worker]
            self._busy.drop(worker)

    def _drop(self, *labels: str) -> None:
        """Drop the rows of a model, or of one version."""
        for family in (self._requests, self._duration, *self._of_batches):
            family.drop(*labels)
        kept = {key: hot for key, hot in self._hot.items() if key[: len(labels)] != labels}
        self._hot = kept
        self._batches.clear()

    def _make_families(self) -> None:
        of = ("model", "version")
        self._requests = series.counters(
            "deepkits_requests_total",
            "Requests answered, by code: ok or an error's.",
            *of,
            "protocol",
            "code",
        )
        self._duration = series.histograms(
            "deepkits_request_duration_seconds",
            "From the request's arrival to its answer; refused requests (4xx, not ready) left out.",
            SECONDS,
            *of,
            "protocol",
        )
        self._of_batches = (
            series.histograms("deepkits_batch_rows", "Rows that ran together.", ROWS, *of),
            series.histograms(
                "deepkits_batch_duration_seconds", "Of one run of a model.", SECONDS, *of
            ),
            series.histograms(
                "deepkits_queue_delay_seconds", "How long a request waited to run.", SECONDS, *of
            ),
        )
        self._busy = series.counters(
            "deepkits_worker_busy_seconds_total", "Time a worker spent computing.", "worker"
        )
        self._deaths = series.counters("deepkits_worker_deaths_total", "Workers that died unasked.")
        self._reloads = series.counters(
            "deepkits_reloads_total",
            "Hot reloads by result: ok, unchanged, rolled_back.",
            "model",
            "result",
        )
        self._dropped = series.counters(
            "deepkits_access_log_dropped_total", "Lines of the access log that were lost."
        )
        for family in (self._deaths, self._dropped):
            family.row()
        self._families = (
            *(self._requests, self._duration, *self._of_batches, self._busy),
            *(self._deaths, self._reloads, self._dropped),
        )

    def _make_registry(self) -> None:
        self._registry = registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        gauge("deepkits_waiting_requests", "Requests that wait to run.").set_function(
            lambda: self._waiting
        )
        self._workers = gauge("deepkits_workers", "Workers that take requests.")
        self._wanted = gauge("deepkits_workers_wanted", "Workers there should be.")
        self._ready = gauge("deepkits_models_ready", "Models with a version that is ready.")
        self._state = gauge(
            "deepkits_model_state",
            "1 for the state a version is in, 0 for the others.",
            "model",
            "version",
            "state",
        )
        self._latency = gauge(
            "deepseek_request_latency",
            f"99th percentile, in milliseconds, of requests answered in the last {WINDOW_S:g} s,"
            " refused ones left out; NaN without any.",
            "model",
        )
        Info("deepkits_build", "What serves.", registry=registry).info(
            {"version": RUNTIME, "python": python_version()}
        )
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
