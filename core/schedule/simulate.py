"""A simulator of events: any scheduler before devices that take the time they are said to take.

Tier (c): nothing is computed and no time passes, so 10^5 jobs take seconds and a seed gives the
same run again. The scheduler is the object that runs in front of real workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Literal

from core.schedule.costs import CostTable
from core.schedule.job import Batch, Device, Job, Model, Reason, Scheduler
from core.schedule.placement import Bound, bound

Arrivals = Literal["even", "poisson", "bursty"]
Change = Literal["die", "retire", "slow", "appear"]


@dataclass(frozen=True)
class DeviceEvent:
    """Something happens to a device at a time."""

    at_s: float
    change: Change
    device: Device
    factor: float = 1.0  # slow: how many times longer it takes from then on


@dataclass(frozen=True)
class Scene:
    """Devices, models, what is asked of them, and what things truly cost."""

    models: Sequence[Model]  # with their SLO, which is also their jobs' deadline
    devices: Sequence[Device]
    truth: CostTable
    mix: Mapping[str, float]  # of each model, its share of the jobs
    arrivals: Arrivals = "poisson"
    burst: float = 8.0  # jobs in a burst on average, where arrivals are bursty
    noise: float = 0.1  # of a run's duration, as standard deviation of its logarithm
    events: Sequence[DeviceEvent] = ()
    has_deadlines: bool = True  # False: jobs are never given up, only late


@dataclass(slots=True)
class Tally:
    """What became of the jobs of one model."""

    offered: int = 0
    in_time: int = 0  # answered within the SLO
    late: int = 0  # answered, later
    expired: int = 0  # taken out of the queue
    lost: int = 0  # given back after devices died
    refused: dict[Reason, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)  # of all answered

    @property
    def attainment(self) -> float:
        """Share of the offered jobs that were answered within the SLO."""
        return self.in_time / self.offered if self.offered else 1.0


@dataclass(frozen=True)
class Span:
    """A batch on a device, for a Gantt chart."""

    device: str
    model: str
    start_s: float
    end_s: float
    rows: int
    is_done: bool  # False: its device died


@dataclass(frozen=True)
class Outcome:
    """One run."""

    models: Mapping[str, Tally]  # jobs after the warm-up
    spans: Sequence[Span]
    measured_s: float  # from the end of the warm-up to the last arrival
    num_open: int  # neither answered nor given back at the end: has to be 0

    @property
    def attainment(self) -> float:
        """The worst model's."""
        return min(tally.attainment for tally in self.models.values())

    @property
    def goodput(self) -> float:
        """Jobs per second answered within their SLO."""
        return sum(tally.in_time for tally in self.models.values()) / self.measured_s


def arrival_times(rate: float, kind: Arrivals, burst: float, random: Random) -> Iterator[float]:
    """Endless times of arrival at a mean rate (jobs per second).

    even: one by one at equal distance; poisson: one by one, independent; bursty: bursts arrive
    independently, each of a geometric number of jobs.
    """
    now = 0.0
    while True:
        if kind == "even":
            now += 1 / rate
            yield now
        elif kind == "poisson":
            now += random.expovariate(rate)
            yield now
        else:
            now += random.expovariate(rate / burst)
            yield now
            while random.random() < 1 - 1 / burst:
                yield now


def simulate(
    scheduler: Scheduler,
    scene: Scene,
    rate: float,
    *,
    num_jobs: int = 10_000,
    seed: int = 0,
    warm_up: float = 0.1,
    num_spans: int = 0,
) -> Outcome:
    """Offer jobs to a scheduler at a mean rate, until all are answered or given up.

    Args:
        scheduler: fresh; devices and models are added here.
        scene: what it has to do.
        rate: jobs per second, of all models together.
        num_jobs: offered.
        seed: of arrivals, their models and the noise.
        warm_up: share of the jobs that is not counted.
        num_spans: batches to keep, the first ones.
    """
    return _Run(scheduler, scene, rate, num_jobs, seed, warm_up, num_spans).run()


class _Run:
    def __init__(
        self,
        scheduler: Scheduler,
        scene: Scene,
        rate: float,
        num_jobs: int,
        seed: int,
        warm_up: float,
        num_spans: int,
    ) -> None:
        self.scheduler = scheduler
        self.scene = scene
        self.random = Random(seed)  # of arrivals: the same for all rules
        self.noise = Random(seed + 1)
        self.num_jobs = num_jobs
        self.first = int(num_jobs * warm_up)  # to be counted
        self.num_spans = num_spans
        self.times = arrival_times(rate, scene.arrivals, scene.burst, self.random)
        self.numbers = count()
        self.heap: list[tuple[float, int, Callable[[float], None]]] = []
        self.tallies = {model.key: Tally() for model in scene.models}
        self.slo = {model.key: model.slo_s for model in scene.models}
        self.running: dict[str, Batch] = {}  # by device
        self.factor = {device.id: 1.0 for device in scene.devices}
        self.kind = {device.id: device.kind for device in scene.devices}
        self.spans: list[Span] = []
        self.open: set[Job] = set()
        self.counted: set[Job] = set()
        self.num_arrived = 0
        self.measured_from = self.last_arrival = 0.0
        self.timer = inf

    def run(self) -> Outcome:
        """Let it all happen."""
        for model in self.scene.models:
            self.scheduler.set_model(model, 0.0)
        for device in self.scene.devices:
            self.scheduler.add_device(device, 0.0)
        for event in self.scene.events:
            self._at(event.at_s, partial(self._change, event))
        self._at(next(self.times), self._arrive)
        heap = self.heap
        self._settle(0.0)
        while heap:
            now, _, happen = heappop(heap)
            happen(now)
            self._settle(now)
            if not self.open and self.num_arrived >= self.num_jobs:
                break
        return Outcome(
            self.tallies,
            self.spans,
            self.last_arrival - self.measured_from,
            len(self.open),
        )

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        heappush(self.heap, (when, next(self.numbers), happen))

    def _look(self, now: float) -> None:
        if now != self.timer:
            return  # it wanted to be asked sooner, and was
        self.timer = inf
        self._give_up(self.scheduler.expire(now))

    def _settle(self, now: float) -> None:
        """Start what the scheduler wants started, and note when it wants to be asked again."""
        for batch in self.scheduler.dispatch(now):
            assert batch.device not in self.running, f"{batch.device} computes two batches"
            self.running[batch.device] = batch
            kind = self.kind[batch.device]
            seconds = self.scene.truth.seconds(batch.model, kind, batch.size)
            assert seconds is not None, f"no true cost of {batch.model} on {kind}"
            seconds *= self.factor[batch.device]
            if self.scene.noise:
                seconds *= self.noise.lognormvariate(0.0, self.scene.noise)
            self._at(now + seconds, partial(self._finish, batch))
        when = self.scheduler.next_event(now)
        if when < self.timer:
            self.timer = when if when > now else now
            self._at(self.timer, self._look)

    def _arrive(self, now: float) -> None:
        random = self.random
        keys = list(self.scene.mix)
        (key,) = random.choices(keys, [self.scene.mix[key] for key in keys])
        deadline = now + self.slo[key] if self.scene.has_deadlines else inf
        job = Job(key, now, deadline)
        number = self.num_arrived
        self.num_arrived += 1
        if number >= self.first:
            if number == self.first:
                self.measured_from = now
            self.last_arrival = now
            self.counted.add(job)
            self.tallies[key].offered += 1
        refusal = self.scheduler.submit(job, now)
        if refusal is None:
            self.open.add(job)
        elif number >= self.first:
            refused = self.tallies[key].refused
            refused[refusal.reason] = refused.get(refusal.reason, 0) + 1
            self.counted.discard(job)
        if self.num_arrived < self.num_jobs:
            self._at(next(self.times), self._arrive)

    def _finish(self, batch: Batch, now: float) -> None:
        if self.running.get(batch.device) is not batch:
            return  # its device died
        del self.running[batch.device]
        self._span(batch, now, is_done=True)
        for job in batch.jobs:
            self.open.remove(job)
            if job in self.counted:
                self.counted.remove(job)
                tally = self.tallies[job.model]
                latency = now - job.arrived_s
                tally.latencies_s.append(latency)
                if latency <= self.slo[job.model]:
                    tally.in_time += 1
                else:
                    tally.late += 1
        self.scheduler.finish(batch, now)

    def _give_up(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.open.remove(job)
            if job in self.counted:
                self.counted.remove(job)
                self.tallies[job.model].expired += 1

    def _change(self, event: DeviceEvent, now: float) -> None:
        device = event.device
        if event.change == "slow":
            self.factor[device.id] = event.factor
        elif event.change == "appear":
            self.factor[device.id] = event.factor
            self.kind[device.id] = device.kind
            self.scheduler.add_device(device, now)
        elif event.change == "retire":
            self.scheduler.retire_device(device.id, now)
        else:
            batch = self.running.pop(device.id, None)
            if batch is not None:
                self._span(batch, now, is_done=False)
            for job in self.scheduler.drop_device(device.id, now):
                self.open.remove(job)
                if job in self.counted:
                    self.counted.remove(job)
                    self.tallies[job.model].lost += 1

    def _span(self, batch: Batch, now: float, *, is_done: bool) -> None:
        if len(self.spans) < self.num_spans:
            span = Span(batch.device, batch.model, batch.started_s, now, batch.size, is_done)
            self.spans.append(span)


def lp_bound(scene: Scene) -> Bound:
    """The most jobs per second that any rule could answer in this scene, noise and SLO aside.

    Each pair counts with the best batching whose duration is within the SLO.
    """
    costs: dict[tuple[str, str], float] = {}
    counts: dict[str, float] = {}
    for device in scene.devices:
        counts[device.kind] = counts.get(device.kind, 0.0) + 1.0
    for model in scene.models:
        for kind in counts:
            curve = scene.truth.curve(model.key, kind, model.max_batch)
            if curve is None or (model.kinds and kind not in model.kinds):
                continue
            per_row = [
                curve[rows] / rows
                for rows in range(1, model.max_batch + 1)
                if curve[rows] <= model.slo_s
            ]
            if per_row:
                costs[model.key, kind] = min(per_row)
    return bound(scene.mix, costs, counts)


@dataclass(frozen=True)
class Sustained:
    """The largest rate at which a rule keeps every model's SLO."""

    rate: float  # offered
    goodput: float  # of it answered within the SLO, per second
    of_bound: float  # goodput over the linear program's bound
    outcome: Outcome  # at that rate


def sustained_rate(
    make: Callable[[], Scheduler],
    scene: Scene,
    *,
    attainment: float = 0.95,
    num_jobs: int = 10_000,
    seed: int = 0,
    precision: float = 0.01,
) -> Sustained:
    """Goodput at equal SLO, by bisection of the offered rate at the scene's mix.

    A rate is sustained if of each model at least `attainment` of the offered jobs are answered
    within its SLO; so nobody gains by dropping the model that is hard.

    Args:
        make: a fresh scheduler for each run.
        scene: devices, models, mix, costs.
        attainment: share of each model's jobs.
        num_jobs: per run.
        seed: the same jobs for all rules.
        precision: of the rate, relative to the bound.
    """
    limit = lp_bound(scene).rate
    low, high = 0.0, 1.0 / attainment
    best: Outcome | None = None
    while high - low > precision:
        middle = (low + high) / 2
        outcome = simulate(make(), scene, middle * limit, num_jobs=num_jobs, seed=seed)
        if outcome.attainment >= attainment:
            low, best = middle, outcome
        else:
            high = middle
    if best is None:
        best = simulate(make(), scene, high * limit, num_jobs=num_jobs, seed=seed)
    if not low:
        return Sustained(0.0, 0.0, 0.0, best)
    return Sustained(low * limit, best.goodput, best.goodput / limit, best)


def curve(
    make: Callable[[], Scheduler],
    scene: Scene,
    loads: Sequence[float],
    *,
    num_jobs: int = 10_000,
    seed: int = 0,
) -> list[tuple[float, Outcome]]:
    """Outcomes over offered loads, given as shares of the linear program's bound."""
    limit = lp_bound(scene).rate
    return [
        (load * limit, simulate(make(), scene, load * limit, num_jobs=num_jobs, seed=seed))
        for load in loads
    ]
