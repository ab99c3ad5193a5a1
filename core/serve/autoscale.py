"""How many workers there should be: from the delay of the queue and what the workers do."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, exp

# Of a batch's time: what a request may wait, and what shows how the queue grows.
BATCHES, SEEN_BATCHES = 1.5, 4.0


@dataclass(frozen=True)
class Load:
    """What was measured since the look before.

    All of it is read off what there is and what was completed; nothing is counted up and down, so
    nothing that was lost can pin the number of workers.
    """

    queue_delay_s: float  # how long the oldest waiting request waits
    utilisation: float  # share of the time in which a worker computed, of all workers; 0 to 1
    rows_per_s: float  # completed
    batch_s: float = 0.0  # how long one took
    refused: bool = False  # a request was turned away for want of capacity
    ready: int = 1  # workers that take requests


@dataclass(frozen=True)
class ScaleRule:
    """When to change the number of workers; every default is a number that the tests hold to."""

    min_workers: int = 1
    max_workers: int = 1
    # A queue that old is too old; the objective of a service leaves some of its time for it.
    delay_s: float = 0.05
    # So long it must be too old: one late look is no load.
    up_after_s: float = 0.3
    # After a change: until its effect can be seen. Longer than what `Load` is measured over.
    settle_s: float = 2.5
    # More workers that complete less than this times as much are no help: no more follow.
    gain: float = 1.15
    # So long the load must fit on one worker less ...
    down_after_s: float = 45.0
    # ... with this share of their time.
    fit: float = 0.6
    # Twice too few soon after a worker was taken away: wait longer, up to this, the next time.
    longest_down_after_s: float = 1800.0
    # Without a request: to zero, where min_workers allows it.
    idle_s: float = 60.0
    # A worker that is not ready then does not come.
    start_s: float = 20.0


@dataclass
class Autoscaler:
    """Grows in steps as large as the queue's growth asks for, shrinks by one after a long calm.

    It never changes while a change is under way. A worker that did not help is the last one until
    the pressure is gone; one that was missed soon after it left makes the next leave later.
    """

    rule: ScaleRule
    wanted: int = field(init=False)
    _delay_s: float = field(init=False, default=0.0)  # the rule's, for such batches
    _up_after_s: float = field(init=False, default=0.0)
    _pressed_s: float | None = field(init=False, default=None)  # since when
    _pressed_delay_s: float = field(init=False, default=0.0)  # the queue's delay then
    _calm_s: float | None = field(init=False, default=None)
    _used_s: float | None = field(init=False, default=None)  # the last sign of a request
    _changed_s: float = field(init=False, default=-1e9)
    _shrunk_s: float = field(init=False, default=-1e9)
    _ready_s: float | None = field(init=False, default=-1e9)  # since when all that are wanted are
    _missing_s: float | None = field(init=False, default=None)  # since when too few are ready
    _rows_before: float | None = field(init=False, default=None)  # per second, before the growth
    _is_stuck: bool = field(init=False, default=False)
    _down_after_s: float = field(init=False)
    _utilisation: float = field(init=False, default=0.0)
    _seen_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.wanted = max(self.rule.min_workers, 1)
        self._down_after_s = self.rule.down_after_s

    def observe(self, now: float, load: Load) -> int:
        """Take in a measurement; the number of workers there should be.

        To be called some ten times a second; `now` is seconds of any clock that only goes on.
        """
        self._smooth(now, load)
        if load.queue_delay_s > 0 or load.utilisation > 0 or load.refused or self._used_s is None:
            self._used_s = now
        # Where one batch takes longer than may be waited, a wait of one batch is no sign of load.
        self._delay_s = max(self.rule.delay_s, BATCHES * load.batch_s)
        self._up_after_s = max(self.rule.up_after_s, load.batch_s)
        is_pressed = load.refused or load.queue_delay_s > self._delay_s
        self._note_pressure(now, load, is_pressed=is_pressed)
        if self._is_changing(now, load):
            return self.wanted
        if is_pressed:
            self._grow(now, load)
        else:
            self._shrink(now)
        return self.wanted

    def wake(self, now: float) -> int:
        """A request came while there was no worker."""
        self._used_s = now
        if self.wanted == 0:
            self._change(now, 1)
        return self.wanted

    def nudge(self, now: float, change: int) -> int:
        """A person wants more workers, or fewer; the bounds hold, and load goes on from there."""
        wanted = min(self.rule.max_workers, max(self.rule.min_workers, self.wanted + change))
        if wanted != self.wanted:
            self._change(now, wanted)
        return self.wanted

    def _smooth(self, now: float, load: Load) -> None:
        elapsed = 0.0 if self._seen_s is None else max(0.0, now - self._seen_s)
        weight = 1 - exp(-elapsed / 1.0)
        self._utilisation += weight * (min(1.0, load.utilisation) - self._utilisation)
        self._seen_s = now

    def _note_pressure(self, now: float, load: Load, *, is_pressed: bool) -> None:
        if is_pressed:
            self._calm_s = None
            if self._pressed_s is None:
                self._pressed_s, self._pressed_delay_s = now, load.queue_delay_s
            return
        self._pressed_s = None
        fits = self.wanted <= 1 or self._fits(self.wanted - 1)
        if load.queue_delay_s > self._delay_s / 2 or not fits:
            self._calm_s = None
        elif self._calm_s is None:
            self._calm_s = now
        if self._calm_s is not None:
            self._is_stuck = False

    def _fits(self, workers: int) -> bool:
        return self._utilisation * self.wanted / workers <= self.rule.fit

    def _is_changing(self, now: float, load: Load) -> bool:
        if load.ready < self.wanted:
            # Growth is on its way, or a dead worker is being replaced.
            self._ready_s = None
            if self._missing_s is None:
                self._missing_s = now
            return now - self._missing_s < self.rule.start_s
        self._missing_s = None
        if self._ready_s is None:
            self._ready_s = now
        return now - max(self._ready_s, self._changed_s) < self.rule.settle_s

    def _grow(self, now: float, load: Load) -> None:
        if self._pressed_s is None or now - self._pressed_s < self._up_after_s:
            return
        if self._rows_before is not None:
            # What the growth before has brought, now that it had time to.
            helped = load.rows_per_s >= self.rule.gain * self._rows_before
            self._rows_before = None
            self._is_stuck = not helped
        if self._is_stuck or self.wanted >= self.rule.max_workers:
            return
        if now - self._shrunk_s < 2 * self._down_after_s:
            self._down_after_s = min(2 * self._down_after_s, self.rule.longest_down_after_s)
        self._rows_before = load.rows_per_s
        self._change(now, min(self.rule.max_workers, max(self.wanted + 1, self._needed(now, load))))

    def _needed(self, now: float, load: Load) -> int:
        """Workers for the load that the growing delay shows.

        In a queue served in turn, load = 1 / (1 - growth of the oldest wait per second). One that
        turns requests away does not grow; twice the workers then.
        """
        assert self._pressed_s is not None
        if load.refused:
            return 2 * self.wanted
        elapsed = max(self._up_after_s, now - self._pressed_s)
        if elapsed < SEEN_BATCHES * load.batch_s:
            # Between two batches the oldest wait grows by a second each second, at any load.
            return self.wanted + 1
        growth = (load.queue_delay_s - self._pressed_delay_s) / elapsed
        return ceil(self.wanted / (1 - min(0.75, max(0.0, growth))))

    def _shrink(self, now: float) -> None:
        floor = self.rule.min_workers
        if self._calm_s is None or self.wanted <= floor:
            return
        if self.wanted > 1:
            if now - self._calm_s >= self._down_after_s and (
                now - self._changed_s >= self._down_after_s
            ):
                self._shrunk_s = now
                self._change(now, self.wanted - 1)
        elif self._used_s is not None and now - self._used_s >= self.rule.idle_s:
            self._change(now, 0)

    def _change(self, now: float, workers: int) -> None:
        if workers < self.wanted:
            self._rows_before = None
        self.wanted, self._changed_s = workers, now
        self._pressed_s = self._calm_s = self._ready_s = None
