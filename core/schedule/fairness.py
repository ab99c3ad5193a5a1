"""Jobs of one model that wait: who is next, and which go together in a batch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heapreplace
from math import inf
from typing import TYPE_CHECKING, Any

from core.schedule.job import Job

if TYPE_CHECKING:
    from core.schedule.plan import Pair

# -priority, when the answer is wanted, number of arrival (so that jobs are never compared), job.
Entry = tuple[int, float, int, Job]


class Lane:
    """One tenant's jobs, the next one first, and how many rows the tenant has had."""

    __slots__ = ("entries", "spent")

    def __init__(self, spent: float) -> None:
        self.entries: list[Entry] = []
        self.spent = spent


class Waiting:
    """The queue of one model.

    The larger priority goes first; between tenants then whoever had fewer rows (start-time fair
    queueing, so that idling saves nothing up); within a tenant whose answer is wanted earliest.
    """

    __slots__ = ("count", "lanes", "only", "rows")

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {}  # by tenant; an empty one may stay while it is the only
        self.only: Lane | None = None  # the lane, if there is but one
        self.count = 0
        self.rows = 0

    def add(self, entry: Entry) -> None:
        """Put a job where it belongs."""
        job = entry[3]
        lane = self.lanes.get(job.tenant)
        if lane is None:
            lane = self._open(job.tenant)
        entries = lane.entries
        if not entries or entry > entries[-1]:
            entries.append(entry)
        else:
            insort(entries, entry)
        self.count += 1
        self.rows += job.size

    def _open(self, tenant: str) -> Lane:
        if self.only is not None and not self.only.entries:
            self.lanes.clear()
        # Whoever comes has no credit for the time before.
        lane = Lane(min((lane.spent for lane in self.lanes.values()), default=0.0))
        self.lanes[tenant] = lane
        self.only = lane if len(self.lanes) == 1 else None
        return lane

    def _close(self, tenant: str) -> None:
        if self.only is None:
            del self.lanes[tenant]
            if len(self.lanes) == 1:
                (self.only,) = self.lanes.values()

    def remove(self, entry: Entry) -> None:
        """Take a job out."""
        job = entry[3]
        lane = self.lanes[job.tenant]
        del lane.entries[bisect_left(lane.entries, entry)]
        if not lane.entries:
            self._close(job.tenant)
        self.count -= 1
        self.rows -= job.size

    def head(self) -> Entry:
        """Who is next."""
        lane = self.only
        if lane is None:
            lane = min(self.lanes.values(), key=lambda lane: (lane.entries[0][0], lane.spent))
        return lane.entries[0]

    def in_order(self) -> Iterable[Entry]:
        """All of them, as they would run one by one."""
        if self.only is not None:
            return self.only.entries
        return self._merged()

    def _merged(self) -> Iterable[Entry]:
        heap = [
            (lane.entries[0][0], lane.spent, number, 0, lane)
            for number, lane in enumerate(self.lanes.values())
        ]
        heapify(heap)
        while heap:
            _, spent, number, index, lane = heap[0]
            entry = lane.entries[index]
            yield entry
            index += 1
            if index < len(lane.entries):
                following = (lane.entries[index][0], spent + entry[3].size, number, index, lane)
                heapreplace(heap, following)
            else:
                heappop(heap)

    def batch(self, pair: Pair, fastest: Sequence[float], now: float, until: float) -> list[Entry]:
        """Who would go together on a device that starts now; nobody is taken out yet.

        In order, leaving out those that only a faster device can still serve; no one joins who
        would make another late.

        Args:
            pair: the device's durations and the most rows that are worth while on it.
            fastest: seconds by rows on the best device there is.
            now: when it starts.
            until: when the device has to be free again.
        """
        seconds, scale, most = pair.seconds, pair.group.scale, pair.rows
        chosen: list[Entry] = []
        rows = 0
        limit = until
        for entry in self.in_order():
            _, due, _, job = entry
            size = job.size
            total = rows + size
            if total > most and chosen:
                break
            end = alone = now + seconds[size] * scale
            # Where only the SLO is short and not the deadline, a small batch now would make all
            # that follow later still.
            wanted = job.deadline_s
            if alone > wanted or (alone > due and now + fastest[size] <= due):
                continue
            if wanted > limit:
                wanted = limit
            if rows:
                end = now + seconds[total] * scale
            if end > wanted:
                break
            limit = wanted
            rows = total
            chosen.append(entry)
            if rows >= most:
                break
        return chosen

    def take(self, chosen: list[Entry]) -> None:
        """Take these out, and count them as had."""
        lane = self.only
        if lane is not None:
            entries = lane.entries
            size = len(chosen)
            if entries[size - 1] is chosen[-1]:
                rows = sum([entry[3].size for entry in chosen]) if size > 1 else chosen[0][3].size
                lane.spent += rows
                self.rows -= rows
                self.count -= size
                del entries[:size]
                return
        for entry in chosen:
            self.lanes[entry[3].tenant].spent += entry[3].size
            self.remove(entry)

    def rows_before(self, priority: int, due: float, tenant: str | None = None) -> int:
        """About how many rows would run before such a job; of a tenant here, with its fair turn."""
        lanes = self.lanes
        if not self.count:
            return 0
        key: Any = (-priority, due, inf)  # behind those that came before and are wanted then too
        if tenant is None or len(lanes) == 1:
            before = sum([bisect_left(lane.entries, key) for lane in lanes.values()])
        else:
            own = lanes.get(tenant)
            turns = 1 + (bisect_left(own.entries, key) if own else 0)
            before = turns - 1
            for name, lane in lanes.items():
                if name != tenant:
                    before += min(turns, bisect_left(lane.entries, key))
        return before * self.rows // self.count
