"""One entity of the reference fold: entity.h in plain Python.

Python's floats are IEEE doubles, so the same operations in the same order give the same bits. Sums
of floats are therefore written as loops: `sum` rounds differently.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from kernels.fold.reference_number import Decay, decay, exp2_negative, half_lives, log2_positive
from kernels.fold.rows import HISTORY

DAY_S = 86_400
WINDOW_DAYS = (1, 7, 30)
BUCKETS = 8  # a window is rolled forward in eighths
BURST_GAP_S = 14 * DAY_S
LOUD = 2.5  # an amount this many times the account's habit is loud
MIN_HABIT = 3.0  # fewer amounts are no habit
HABIT_CUT = 3.0  # an amount beyond this many times the mean counts as no more
UNKNOWN, FRAUD = -1, 1  # status of an event; 0 legitimate
NAN = math.nan


def ratio(part: float, whole: float) -> float:
    """Divide; NaN without a whole."""
    return part / whole if whole > 0.0 else NAN


def age(now_s: int, then_s: int | None) -> float:
    """Seconds from then to now, NaN if it never was."""
    return NAN if then_s is None else float(now_s - then_s)


@dataclass
class Moments:
    """Mean and deviation of numbers that can be taken back."""

    count: float = 0.0
    total: float = 0.0
    square: float = 0.0

    def add(self, value: float) -> None:
        """Count a value in."""
        self.count += 1.0
        self.total += value
        self.square += value * value

    def remove(self, value: float) -> None:
        """Take a value back."""
        self.count -= 1.0
        self.total -= value
        self.square -= value * value

    @property
    def mean(self) -> float:
        """NaN without values."""
        return ratio(self.total, self.count)

    @property
    def deviation(self) -> float:
        """Of the population; NaN for less than two values."""
        if self.count < 2.0:
            return NAN
        mean = self.total / self.count
        variance = self.square / self.count - mean * mean
        return math.sqrt(variance) if variance > 0.0 else 0.0


class Window:
    """Events of the last days, in eighths: the running eighth and the seven before it."""

    def __init__(self, days: int) -> None:
        self.width_s = days * DAY_S // BUCKETS
        self.buckets: dict[int, tuple[int, float]] = {}  # number since 1970 -> events, amount

    def add(self, time_s: int, amount: float) -> None:
        """Count an event in."""
        count, total = self.buckets.get(time_s // self.width_s, (0, 0.0))
        self.buckets[time_s // self.width_s] = count + 1, total + amount

    def read(self, time_s: int) -> tuple[float, float]:
        """Events, mean amount."""
        newest = time_s // self.width_s
        self.buckets = {k: bucket for k, bucket in self.buckets.items() if k > newest - BUCKETS}
        count, total = 0, 0.0
        for _, bucket in sorted(self.buckets.items(), key=lambda item: item[0] % BUCKETS):
            count += bucket[0]
            total += bucket[1]
        return float(count), ratio(total, float(count))


@dataclass
class Burst:
    """Times of like events; a gap of 14 days begins a new burst."""

    first_s: int | None = None
    last_s: int | None = None

    def add(self, time_s: int) -> None:
        """Note an event; labels may bring them out of order."""
        if self.last_s is None or time_s - self.last_s > BURST_GAP_S:
            self.first_s = time_s
        self.last_s = time_s if self.last_s is None else max(self.last_s, time_s)


@dataclass
class FraudRun:
    """Known frauds of one sort, quiet or loud."""

    updated_s: int
    decayed: float = 0.0  # half-life 32 days
    burst: Burst = field(default_factory=Burst)

    def add(self, now_s: int, time_s: int) -> None:
        """Learn at `now_s` of a fraud at `time_s`."""
        self.decayed = self.decayed * self._fade(now_s) + 1.0
        self.updated_s = now_s
        self.burst.add(time_s)

    def read(self, time_s: int) -> tuple[float, float, float]:
        """Frauds (fading), age of the latest, age of its burst."""
        faded = self.decayed * self._fade(time_s)
        return faded, age(time_s, self.burst.last_s), age(time_s, self.burst.first_s)

    def _fade(self, now_s: int) -> float:
        return exp2_negative(half_lives(now_s - self.updated_s))


@dataclass
class Event:
    """What later rows and the event's own label need of it."""

    number: int
    time_s: int
    account: int
    ratio: float  # amount over the account's habit before it; NaN without a habit
    touched: list[tuple[Entity, float]] = field(default_factory=list)  # and what their habits took
    status: int = UNKNOWN  # or 0 legitimate, 1 fraud, once the label is visible

    @property
    def loud(self) -> bool:
        """Far beyond the account's habit."""
        return self.ratio > LOUD


class Entity:
    """One entity in one role, from its first event on."""

    def __init__(self, time_s: int) -> None:
        self.count = 0
        self.first_s = self.last_s = time_s
        self.counts, self.totals = Decay(0.0, 0.0, 0.0, 0.0), Decay(0.0, 0.0, 0.0, 0.0)
        self.windows = [Window(days) for days in WINDOW_DAYS]
        self.habit, self.log_amounts = Moments(), Moments()
        self.recent: deque[float] = deque(maxlen=HISTORY)
        self.excess_1d = self.excess_8d = 0.0
        self.loud_events = Burst()
        # Labels that have become visible; the fading ones are as of `known_s`.
        self.known_s = time_s
        self.known_count = self.known_fraud = 0.0
        self.known_8d = self.known_32d = self.fraud_8d = self.fraud_32d = 0.0
        self.last_fraud_s: int | None = None
        self.last_legit_s: int | None = None
        self.streak_s: int | None = None
        self.streak = self.legit_since_fraud = 0.0
        self.quiet_frauds, self.loud_frauds = FraudRun(time_s), FraudRun(time_s)

    def add(self, time_s: int, amount: float, account_ratio: float) -> float:
        """Count an event in; returns what its habit took of the amount."""
        faded = decay(time_s - self.last_s)
        self.counts = Decay(*(n * by + 1.0 for n, by in zip(self.counts, faded, strict=True)))
        self.totals = Decay(*(n * by + amount for n, by in zip(self.totals, faded, strict=True)))
        for window in self.windows:
            window.add(time_s, amount)
        self.recent.append(amount)
        limit = HABIT_CUT * self.habit.mean
        habit = limit if self.habit.count >= MIN_HABIT and amount > limit else amount
        self.habit.add(habit)
        self.log_amounts.add(log2_positive(1.0 + amount))
        excess = account_ratio - 2.0 if account_ratio > 2.0 else 0.0
        self.excess_1d = self.excess_1d * faded.day + excess
        self.excess_8d = self.excess_8d * faded.days_8 + excess
        if account_ratio > LOUD:
            self.loud_events.add(time_s)
        self.last_s = time_s
        self.count += 1
        return habit

    def learn(self, now_s: int, event: Event, habit: float, fraud: int) -> None:
        """Take in the label of one of its events."""
        faded = decay(now_s - self.known_s)
        self.known_8d = self.known_8d * faded.days_8 + 1.0
        self.known_32d = self.known_32d * faded.days_32 + 1.0
        self.fraud_8d = self.fraud_8d * faded.days_8 + fraud
        self.fraud_32d = self.fraud_32d * faded.days_32 + fraud
        self.known_s = now_s
        self.known_count += 1.0
        if not fraud:
            self.last_legit_s = event.time_s
            self.streak, self.streak_s = 0.0, None
            self.legit_since_fraud += 1.0
            return
        self.known_fraud += 1.0
        self.last_fraud_s = event.time_s
        if self.streak == 0.0:
            self.streak_s = event.time_s
        self.streak += 1.0
        self.legit_since_fraud = 0.0
        self.habit.remove(habit)
        (self.loud_frauds if event.loud else self.quiet_frauds).add(now_s, event.time_s)

    # The features below come in the order of `features.ENTITY`.

    def activity(self, time_s: int) -> Iterable[float]:
        """How often and how much."""
        faded = decay(time_s - self.last_s)
        yield age(time_s, self.first_s if self.count else None)
        yield age(time_s, self.last_s if self.count else None)
        yield float(self.count)
        yield from (n * by for n, by in zip(self.counts, faded, strict=True))
        # Both fade alike, so their ratio does not.
        yield ratio(self.totals.day, self.counts.day)
        yield ratio(self.totals.days_8, self.counts.days_8)
        yield ratio(self.totals.days_32, self.counts.days_32)
        for window in self.windows:
            yield from window.read(time_s)

    def amounts(self, time_s: int, amount: float) -> Iterable[float]:
        """How the event's amount compares."""
        faded = decay(time_s - self.last_s)
        log_amount, logs = log2_positive(1.0 + amount), self.log_amounts
        middle = median(self.recent)
        yield self.habit.mean
        yield ratio(amount, self.habit.mean)
        yield ratio(amount - self.habit.mean, self.habit.deviation)
        yield ratio(log_amount - logs.mean, logs.deviation)
        yield ratio(amount, middle)
        yield ratio(amount - middle, median([abs(each - middle) for each in self.recent]))
        yield self.excess_1d * faded.day
        yield self.excess_8d * faded.days_8
        yield age(time_s, self.loud_events.last_s)
        yield age(time_s, self.loud_events.first_s)

    def labels(self, time_s: int) -> Iterable[float]:
        """What the visible labels say."""
        faded = decay(time_s - self.known_s)
        yield self.known_count
        yield self.known_fraud
        yield self.known_8d * faded.days_8
        yield ratio(self.known_fraud, self.known_count)
        yield ratio(self.fraud_8d, self.known_8d)
        yield ratio(self.fraud_32d, self.known_32d)
        yield self.fraud_8d * faded.days_8
        yield self.fraud_32d * faded.days_32
        yield age(time_s, self.last_fraud_s)
        yield age(time_s, self.last_legit_s)
        yield self.streak
        yield age(time_s, self.streak_s)
        yield self.legit_since_fraud
        yield from self.quiet_frauds.read(time_s)
        yield from self.loud_frauds.read(time_s)


def median(values: Iterable[float]) -> float:
    """Middle value or mean of the two; NaN without values."""
    ordered = sorted(values)
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) * 0.5 if n else NAN
