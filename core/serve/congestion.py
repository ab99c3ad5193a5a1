"""Whether requests wait in vain: a burst may queue, a queue that stands helps nobody.

Under lasting overload a long queue makes every answer late, and all that is computed is for callers
who no longer want it. So once the oldest request has waited several times the objective, those that
set no deadline get one near the objective: what cannot be answered by then is refused at once, and
what is accepted is answered in time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

# The queue is too old when its oldest request has waited so many times the objective: a few callers
# that each wait for their answer before they ask again may be slow, but do not make it longer.
NUM_OBJECTIVES = 5
# So long it must be too old ...
STANDING_S = 0.1
# ... and so long it counts as standing after the last sign of it.
HOLD_S = 1.0
# Of the objective: the rest is for the way, and for estimates that are not quite right.
SHARE = 0.75
# A deadline leaves time for so many runs of one row, whatever the objective says.
NUM_RUNS = 3


@dataclass
class Congestion:
    """What is known of the queue; times are seconds on one clock."""

    slo_s: float
    _late_s: float | None = field(init=False, default=None)  # since when the queue is too old
    _until_s: float = field(init=False, default=-inf)
    _row_s: float = field(init=False, default=0.0)

    def observe(self, now: float, queue_delay_s: float) -> None:
        """Take in how long the oldest request waits."""
        if queue_delay_s <= NUM_OBJECTIVES * max(self.slo_s, self.bound_s):
            self._late_s = None
            return
        if self._late_s is None:
            self._late_s = now
        if now - self._late_s >= STANDING_S:
            self._until_s = now + HOLD_S

    def computed(self, rows: int, seconds: float) -> None:
        """Take in what a batch took."""
        self._row_s += 0.1 * (seconds / rows - self._row_s)

    def refused(self, now: float) -> None:
        """A request was turned away for the deadline that it got here: it goes on."""
        self._until_s = max(self._until_s, now + HOLD_S)

    def is_standing(self, now: float) -> bool:
        """Whether requests without a deadline get one."""
        return now < self._until_s

    @property
    def bound_s(self) -> float:
        """How long an answer may take where the queue stands."""
        return max(SHARE * self.slo_s, NUM_RUNS * self._row_s)
