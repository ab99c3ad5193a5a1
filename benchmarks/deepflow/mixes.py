"""What is asked of the workers: mixes of models, their arrivals and what counts as in time.

Written down after the cost of every model on every kind of worker was known, and before the rules
were compared on them. Two sizes, of mobilenet's pictures and of a fraud request, were set after
first trials of the simulator and one of the real tier.

A model's SLO is five times its slowest run alone (one request, the slowest of the mix's workers),
at least 50 ms; the same for all rules, counted from when a request should have been sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from benchmarks.deepflow import models
from benchmarks.deepflow.costs import BATCHES, Costs

SLO_TIMES = 5
SLO_AT_LEAST_S = 0.05
# Of every model's requests, in time: else a rate is too much.
GOOD_SHARE = 0.95
# A quarter of each second at twice the mean rate, the rest at two thirds of it.
BURST = ((0.25, 2.0), (0.75, 2 / 3))
STEADY = ((1.0, 1.0),)


@dataclass(frozen=True)
class Stream:
    """Requests for one model."""

    model: str
    share: float  # of the mix's requests
    size: int = 1  # rows in a request


@dataclass(frozen=True)
class Mix:
    """Streams on some workers."""

    name: str
    kinds: tuple[str, ...]  # of the workers, one per core; in AUTO's best order of priority
    streams: tuple[Stream, ...]
    pattern: tuple[tuple[float, float], ...] = STEADY  # seconds and rate over the mean, in turns

    def slo_s(self, costs: Costs) -> dict[str, float]:
        """Of each model."""
        return {
            stream.model: max(
                SLO_TIMES
                * max(best_batch_s(costs, stream, kind, largest=1) for kind in self.kinds),
                SLO_AT_LEAST_S,
            )
            for stream in self.streams
        }

    def job_costs(self, costs: Costs) -> dict[tuple[str, str], float]:
        """Seconds per request on each kind, in the batches that are best for it."""
        return {
            (stream.model, kind): best_batch_s(costs, stream, kind)
            for stream in self.streams
            for kind in self.kinds
        }

    @property
    def shares(self) -> dict[str, float]:
        """Of each model, its share of the requests."""
        return {stream.model: stream.share for stream in self.streams}

    @property
    def counts(self) -> dict[str, float]:
        """Workers of each kind."""
        return {kind: float(self.kinds.count(kind)) for kind in dict.fromkeys(self.kinds)}


def best_batch_s(costs: Costs, stream: Stream, kind: str, largest: int | None = None) -> float:
    """Seconds per request in the best batch of at most `largest` requests."""
    most = models.max_batch(stream.model)
    sizes = [
        rows
        for rows in BATCHES
        if stream.size <= rows <= most and (largest is None or rows <= largest * stream.size)
    ]
    return min(costs.typical(stream.model, kind, rows) * stream.size / rows for rows in sizes)


PHOTOS = (Stream("resnet18", 0.35), Stream("resnet50", 0.15), Stream("mobilenet", 0.5))
CLINIC = (Stream("conv3d", 0.6), Stream("resnet50", 0.4))
# A fraud request is a merchant's 64 payments.
BANK = (Stream("fraud", 0.5, size=64), Stream("lstm", 0.5))
ALL = (
    Stream("resnet18", 0.15),
    Stream("resnet50", 0.1),
    Stream("mobilenet", 0.2),
    Stream("fraud", 0.2, size=64),
    Stream("lstm", 0.15),
    Stream("conv3d", 0.2),
)

MIXES = (
    Mix("photos", ("ort-int8", "openvino"), PHOTOS),
    Mix("clinic", ("ort-int8", "openvino"), CLINIC),
    Mix("bank in bursts", ("ort-int8", "openvino"), BANK, BURST),
    Mix("everything", ("ort-int8", "openvino"), ALL),
    Mix("everything in bursts", ("ort-int8", "openvino-bf16"), ALL, BURST),
    Mix("everything, float32 and int8", ("ort-int8", "ort-fp32"), ALL),
    # Nothing to choose between: what is won here is won by batching alone.
    Mix("alike", ("openvino", "openvino"), PHOTOS),
)


@dataclass(frozen=True)
class Arrivals:
    """When requests come, and for what; times in seconds from the start."""

    times_s: np.ndarray  # (n,) ascending
    stream: np.ndarray  # (n,) index into the mix's streams


def arrivals(mix: Mix, rate: float, seconds: float, seed: int) -> Arrivals:
    """Poisson arrivals at a mean rate; a mix's seed gives the same to every rule."""
    rng = np.random.default_rng((seed, *mix.name.encode()))
    # Unit arrivals, moved to where the cumulative rate reaches them.
    expected = rate * seconds
    count = int(expected + 6 * np.sqrt(expected) + 10)
    units = np.cumsum(rng.exponential(size=count))
    shares = np.array([stream.share for stream in mix.streams])
    stream = rng.choice(len(shares), size=count, p=shares / shares.sum())
    cycle = sum(part for part, _ in mix.pattern)
    ends = [0.0, *accumulate(part for part, _ in mix.pattern)]
    done = [0.0, *accumulate(part * over for part, over in mix.pattern)]
    turns, rest = np.divmod(units / rate, cycle)
    times = turns * cycle + np.interp(rest, done, ends)
    kept = times < seconds
    return Arrivals(times[kept], stream[kept])


def bound_rate(mix: Mix, costs: Costs) -> float:
    """Requests per second that no rule can exceed: the linear program's."""
    from core.schedule.placement import bound

    return bound(mix.shares, mix.job_costs(costs), mix.counts).rate


def rates_of(mix: Mix, costs: Costs) -> Mapping[str, float]:
    """What a rule without choice would reach: each kind alone, for a look at the differences."""
    job = mix.job_costs(costs)
    total = sum(mix.shares.values())
    return {
        kind: total / sum(share * job[model, kind] for model, share in mix.shares.items())
        for kind in mix.counts
    }
