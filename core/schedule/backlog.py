"""All jobs that wait, of all models: who they are, since when, until when, and whose."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from core.schedule.fairness import Entry
from core.schedule.job import Job, Refusal
from core.schedule.plan import Served

# A tenant below its fair share of the queue gets in above `max_queue` by this share of it.
RESERVE = 8
LONGEST_RETRY_S = 10.0


class Backlog:
    """The models' queues and what is counted over all of them."""

    def __init__(self, max_queue: int) -> None:
        self.max_queue = max_queue
        self.busy: dict[str, Served] = {}  # models with a queue
        self.entries: dict[Job, tuple[Served, Entry]] = {}
        self._jobs: dict[int, Job] = {}  # the same by number
        # Heap: when a job must start, its number. No job: one that is done must not stay in memory.
        self._latest: list[tuple[float, int]] = []
        self._tenants: dict[str, int] = {}
        self._numbers = count()

    def add(self, model: Served, job: Job) -> None:
        """A job waits."""
        due = job.arrived_s + model.spec.slo_s
        deadline = job.deadline_s
        number = next(self._numbers)
        entry = (-job.priority, due if due < deadline else deadline, number, job)
        model.waiting.add(entry)
        self.busy[model.spec.key] = model
        self.entries[job] = (model, entry)
        self._jobs[number] = job
        tenants = self._tenants
        tenants[job.tenant] = tenants.get(job.tenant, 0) + 1
        if deadline < inf:
            latest = self._latest
            fastest = model.fastest
            heappush(latest, (deadline - fastest[job.size] if fastest else deadline, number))
            if len(latest) > 2 * len(self._jobs) + 1000:
                latest[:] = [item for item in latest if item[1] in self._jobs]
                heapify(latest)

    def remove(self, job: Job) -> None:
        """It waits no more, and was not computed."""
        model, entry = self.entries[job]
        model.waiting.remove(entry)
        self._forget(model, entry)

    def take(self, model: Served, chosen: list[Entry]) -> list[Job]:
        """These start."""
        model.waiting.take(chosen)
        jobs = []
        for entry in chosen:
            self._forget(model, entry)
            jobs.append(entry[3])
        return jobs

    def _forget(self, model: Served, entry: Entry) -> None:
        job = entry[3]
        del self.entries[job]
        del self._jobs[entry[2]]
        tenants = self._tenants
        left = tenants[job.tenant] - 1
        if left:
            tenants[job.tenant] = left
        else:
            del tenants[job.tenant]
        if not model.waiting.count:
            self.busy.pop(model.spec.key, None)

    def pop_late(self, now: float) -> list[Job]:
        """Take out those that no device can do in time any more."""
        late = []
        heap, jobs = self._latest, self._jobs
        while heap and (heap[0][0] <= now or heap[0][1] not in jobs):
            job = jobs.get(heappop(heap)[1])
            if job is not None:
                self.remove(job)
                late.append(job)
        return late

    def next_late_s(self) -> float:
        """When `pop_late` has something to do; may be inf."""
        heap, jobs = self._latest, self._jobs
        while heap and heap[0][1] not in jobs:
            heappop(heap)
        return heap[0][0] if heap else inf

    def delay_s(self, now: float) -> float:
        """How long the oldest one waits."""
        # Jobs of a dead device stand behind those that came meanwhile; they move soon.
        oldest = next(iter(self.entries), None)
        return 0.0 if oldest is None else max(0.0, now - oldest.arrived_s)

    def refuse(self, job: Job, model: Served, now: float) -> Refusal | None:
        """Whether there is no room for a job; who is late is for `wait_s`."""
        tenants = self._tenants
        mine = tenants.get(job.tenant, 0)
        num_tenants = len(tenants) + (not mine)
        has_share = mine * num_tenants >= self.max_queue
        waiting = len(self.entries)
        if waiting >= self.max_queue and (
            has_share or num_tenants == 1 or waiting >= self.max_queue * (1 + 1 / RESERVE)
        ):
            return Refusal("full", self._retry_s(model, job, now))
        if has_share and num_tenants > 1:
            return Refusal("tenant", self._retry_s(model, job, now))
        return None

    def _retry_s(self, model: Served, job: Job, now: float) -> float:
        return min(max(self.wait_s(model, job, now) / 2, 0.001), LONGEST_RETRY_S)

    def is_surely_within(self, left_s: float, model: Served, job: Job, now: float) -> bool:
        """Answered by then even if all that waits went first; False says nothing."""
        for pair in model.good:
            group = pair.group
            wait_s = group.ready_s(now) + pair.seconds[max(pair.rows, job.size)] * group.scale
            if wait_s + group.backlog_s() <= left_s:
                return True
        return False

    def wait_s(self, model: Served, job: Job, now: float) -> float:
        """Until a job's answer, if it were queued now and all went by the plan; 0: unknown."""
        due = min(job.arrived_s + model.spec.slo_s, job.deadline_s)
        best = inf
        before = model.waiting.rows_before(job.priority, due, job.tenant)
        for pair in model.good:
            group = pair.group
            mine = before * pair.share
            # Of the model's own rows, those of the last batch before it go with the job.
            whole = mine - mine % pair.rows
            together = max(
                job.size, min(pair.rows, int(mine) + job.size) if not whole else pair.rows
            )
            wait_s = group.ready_s(now) + pair.seconds[together] * group.scale
            wait_s += whole * pair.row_s / len(group.workers)
            for other, load in group.loads.items():
                if other is not model and other.waiting.count:
                    wait_s += load * other.waiting.rows_before(job.priority, due)
            best = min(best, wait_s)
        return best if best < inf else 0.0
