import itertools
import random
from collections import deque

import pytest

from core.serve.autoscale import Autoscaler, Load, ScaleRule

TICK_S = 0.1
START_S = 0.5  # of a worker
WINDOW_S = 2.0


class Service:
    """A queue before workers, and an autoscaler that looks at it: no clocks, no processes."""

    def __init__(self, rule, service_s=0.02, cores=64, seed=0, max_queue=10_000):
        self.scaler = Autoscaler(rule)
        self.service_s = service_s
        self.cores = cores
        self.random = random.Random(seed)
        self.max_queue = max_queue
        self.now = 0.0
        self.queue = deque()
        self.busy = dict.fromkeys(range(self.scaler.wanted), 0.0)  # until when
        self.starting = []
        self.done = deque()
        self.changes = []
        self.is_refusing = False

    def run(self, seconds, rate, noise=0.0):
        """Poisson arrivals; `noise` is how far the service time varies."""
        end = self.now + seconds
        arrival = self.now + self.random.expovariate(rate) if rate else float("inf")
        while self.now < end - 1e-9:
            tick_end = self.now + TICK_S
            while arrival < tick_end:
                if len(self.queue) < self.max_queue:
                    self.queue.append(arrival)
                else:
                    self.is_refusing = True
                arrival += self.random.expovariate(rate)
            self.serve(tick_end, noise)
            self.now = tick_end
            self.look()

    def serve(self, until, noise):
        # Workers beyond the cores slow each other down.
        slowdown = max(1.0, len(self.busy) / self.cores)
        while self.queue and self.busy:
            worker = min(self.busy, key=self.busy.get)
            start = max(self.busy[worker], self.queue[0])
            if start >= until:
                return
            self.queue.popleft()
            seconds = self.service_s * slowdown * (1 + noise * self.random.uniform(-1, 1))
            self.busy[worker] = start + seconds
            self.done.append((start + seconds, seconds))

    def look(self):
        while self.done and self.done[0][0] < self.now - WINDOW_S:
            self.done.popleft()
        for ready_s in [ready_s for ready_s in self.starting if ready_s <= self.now]:
            self.starting.remove(ready_s)
            self.busy[max(self.busy, default=0) + 1] = self.now
        recent = [seconds for ended, seconds in self.done if ended <= self.now]
        load = Load(
            queue_delay_s=self.now - self.queue[0] if self.queue else 0.0,
            utilisation=min(1.0, sum(recent) / WINDOW_S / max(1, len(self.busy))),
            rows_per_s=len(recent) / WINDOW_S,
            batch_s=sum(recent) / max(1, len(recent)),
            refused=self.is_refusing,
            ready=len(self.busy),
        )
        self.is_refusing = False
        before = self.scaler.wanted
        wanted = self.scaler.observe(self.now, load)
        if wanted != before:
            self.changes.append((self.now, wanted))
        while len(self.busy) + len(self.starting) < wanted:
            self.starting.append(self.now + START_S)
        while len(self.busy) > wanted:
            self.busy.pop(max(self.busy))

    def changes_in(self, start, end):
        return [change for change in self.changes if start <= change[0] < end]


def most_in_a_minute(service, start, end):
    return max(
        (len(service.changes_in(at, at + 60)) for at, _ in service.changes_in(start, end)),
        default=0,
    )


@pytest.mark.parametrize("noise", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("load", [0.3, 0.9, 1.0, 1.1, 1.9, 2.0, 2.1, 3.5, 3.9, 4.0, 7.6, 12.0])
def test_a_constant_load_changes_the_workers_at_most_twice_a_minute(load, noise):
    service = Service(ScaleRule(max_workers=8), seed=int(100 * load))
    service.run(300, load / service.service_s, noise)
    # What a load that was never seen before needs is found within its first seconds.
    assert most_in_a_minute(service, 10, 300) <= 2
    assert len(service.changes_in(0, 10)) <= 4
    # Five minutes of the same load do not keep it busy.
    assert len(service.changes_in(60, 300)) <= 4


@pytest.mark.parametrize("load", [0.5, 0.9, 1.5, 3.0, 7.5])
def test_batches_longer_than_the_objective_do_not_make_it_restless(load):
    service = Service(ScaleRule(max_workers=8, delay_s=0.025), service_s=0.3)
    service.run(900, load / service.service_s, noise=0.5)
    assert most_in_a_minute(service, 10, 900) <= 2
    assert len(service.changes_in(60, 900)) <= 6
    assert load <= len(service.busy) <= load + 3


@pytest.mark.parametrize("load", [1.5, 3.0, 6.0])
def test_more_load_is_answered_within_a_second(load):
    service = Service(ScaleRule(max_workers=8))
    service.run(30, 0.3 / service.service_s)
    assert service.changes == []
    service.run(20, load / service.service_s)
    first = service.changes[0][0] - 30
    assert first < 1.0
    assert len(service.busy) >= load
    assert len(service.queue) < 20


def test_less_load_lets_workers_go_one_by_one():
    service = Service(ScaleRule(max_workers=8))
    service.run(30, 5.0 / service.service_s)
    most = len(service.busy)
    assert most >= 6
    before = service.now
    service.run(600, 0.2 / service.service_s)
    assert len(service.busy) == 1
    downs = service.changes_in(before, service.now)
    assert [wanted for _, wanted in downs] == list(range(most - 1, 0, -1))
    assert all(b[0] - a[0] >= 30 for a, b in itertools.pairwise(downs))


@pytest.mark.parametrize("max_queue", [100, 10_000])
def test_workers_that_do_not_help_are_not_followed_by_more(max_queue):
    service = Service(ScaleRule(max_workers=32), cores=2, max_queue=max_queue)
    service.run(300, 10.0 / service.service_s)
    most = max(wanted for _, wanted in service.changes)
    # One growth too many is how it is found out.
    assert most <= 16
    assert len(service.changes) <= 4
    assert service.changes_in(60, 300) == []


def test_after_a_load_too_large_it_grows_again_for_the_next():
    service = Service(ScaleRule(max_workers=32), cores=2)
    service.run(30, 4.0 / service.service_s)
    service.cores = 64
    service.queue.clear()
    service.run(300, 0.5 / service.service_s)
    calm = len(service.busy)
    service.run(20, 20.0 / service.service_s)
    assert len(service.busy) >= 20 > calm


def test_without_requests_no_worker_is_left_where_that_is_allowed():
    service = Service(ScaleRule(min_workers=0, max_workers=2))
    service.run(30, 0.2 / service.service_s)
    assert len(service.busy) == 1
    service.run(65, 0)
    assert len(service.busy) == 0
    # The first request starts one.
    assert service.scaler.wake(service.now) == 1
    service.run(5, 0.2 / service.service_s)
    assert len(service.busy) == 1


def test_one_worker_stays_where_none_is_not_allowed():
    service = Service(ScaleRule(min_workers=1, max_workers=2))
    service.run(300, 0)
    assert service.changes == []


def test_a_dead_worker_is_no_reason_to_grow():
    service = Service(ScaleRule(max_workers=8))
    service.run(60, 0.7 / service.service_s)
    before = list(service.changes)
    service.busy.clear()
    service.starting.append(service.now + START_S)
    service.run(60, 0.7 / service.service_s)
    assert service.changes == before


def test_a_worker_that_never_comes_does_not_pin_the_number():
    scaler = Autoscaler(ScaleRule(max_workers=4))
    now = 0.0
    for _ in range(100):
        scaler.observe(now := now + 0.1, Load(1.0, 1.0, 10.0, ready=1))
    assert scaler.wanted == 2
    # What was asked for and never came is taken back once it is calm.
    for _ in range(6000):
        scaler.observe(now := now + 0.1, Load(0.0, 0.01, 0.1, ready=1))
    assert scaler.wanted == 1


def test_bounds_hold_under_any_load():
    service = Service(ScaleRule(min_workers=2, max_workers=3), max_queue=50)
    assert len(service.busy) == 2
    service.run(30, 100 / service.service_s)
    assert len(service.busy) == 3
    service.run(300, 0)
    assert len(service.busy) == 2
