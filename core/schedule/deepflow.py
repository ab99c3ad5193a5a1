"""DeepFlow's rule: each device what it is comparatively best at, and nothing late that need not be.

A job waits in its model's queue and is bound to a device only when one is idle. An idle device
takes from the models that a plan gives it (a linear program over the mix that arrives, renewed in
the background) the batch whose answer is wanted most urgently; from others only what would be done
sooner that way, and only if its own models' next jobs are not late for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from core.schedule.costs import CostTable
from core.schedule.fairness import Entry
from core.schedule.job import Batch, Device, Job, Model, Refusal
from core.schedule.plan import (
    MEMORY_S,
    Group,
    Pair,
    Served,
    Worker,
    connect,
    remember,
    slow_step,
    spread,
)

RETRY_S = 1.0  # when nothing is known
# The plan is renewed when models' shares of the arrivals moved by this much together.
MIX_MOVED = 0.1
DOUBT_S = 1.0  # a slowed device that was not seen this long may have recovered
# A tenant below its fair share of the queue gets in above `max_queue` by this share of it.
RESERVE = 8
# A good device may be this much slower than waiting for a faster one would be.
PATIENCE = 2.0


class DeepFlow:
    """A `Scheduler` that knows what each device costs."""

    def __init__(self, costs: CostTable, *, max_queue: int = 1024, replan_s: float = 0.25) -> None:
        """Schedule by a table, which it keeps up to date.

        Args:
            costs: may lack pairs; they are probed with one job when a device is idle.
            max_queue: jobs that wait at most, over all models.
            replan_s: between two plans at least, unless devices or models change.
        """
        if max_queue < 1:
            raise ValueError(f"max_queue={max_queue} leaves no job room to wait; give 1 or more")
        self.costs = costs
        self.max_queue = max_queue
        self.replan_s = replan_s
        self._models: dict[str, Served] = {}
        self._workers: dict[str, Worker] = {}
        self._groups: dict[tuple[str, int], Group] = {}
        self._busy: dict[str, Served] = {}  # models with a queue
        self._entries: dict[Job, tuple[Served, Entry]] = {}
        self._jobs: dict[int, Job] = {}  # the same by number
        self._latest: list[tuple[float, int]] = []  # heap: when it must start, number
        self._tenants: dict[str, int] = {}
        self._numbers = count()
        self._num_idle = 0
        self._planned_s = -inf
        self._spread_s = -inf
        self._mix: dict[str, float] = {}
        self._is_stale = False  # the plan is of other devices or models
        self._has_news = False  # something arrived since the last plan

    # What happens.

    def add_device(self, device: Device, now: float) -> None:
        """A device is there and idle.

        Raises:
            ValueError: there is one of that name.
        """
        if device.id in self._workers:
            raise ValueError(f"device {device.id!r} is there already; drop it first")
        worker = self._workers[device.id] = Worker(device, now)
        self._join(worker)
        worker.group.idle.append(worker)
        self._num_idle += 1
        self._reconnect()

    def retire_device(self, device_id: str, now: float) -> None:  # noqa: ARG002
        """It gets no further batch; what it computes will still `finish`."""
        worker = self._workers[device_id]
        if worker.is_retired:
            return
        worker.is_retired = True
        self._leave(worker)
        if worker.batch is None:
            self._forget(worker)
        self._reconnect()

    def drop_device(self, device_id: str, now: float) -> list[Job]:  # noqa: ARG002
        """It is gone. Its jobs are queued again; those that lost a device before come back."""
        worker = self._workers.get(device_id)
        if worker is None:  # retired, and done since
            return []
        if not worker.is_retired:
            self._leave(worker)
        self._forget(worker)
        lost = []
        if worker.batch is not None:
            model = self._models.get(worker.batch.model)
            for pair in model.unknown if model else ():
                pair.is_probing = False
            for job in worker.batch.jobs:
                job.num_deaths += 1
                if model is None or job.num_deaths > 1:  # one death may be the device's fault
                    lost.append(job)
                else:
                    self._queue(model, job)
            worker.batch = None
        self._reconnect()
        return lost

    def set_model(self, model: Model, now: float) -> None:  # noqa: ARG002
        """A model is loaded, or what is known of it changed."""
        served = self._models.get(model.key)
        if served is None:
            served = self._models[model.key] = Served(model, next(self._numbers))
        else:
            served.spec = model
        self._reconnect()

    def drop_model(self, key: str, now: float) -> list[Job]:  # noqa: ARG002
        """No further job of it; gives back those that wait."""
        served = self._models.pop(key, None)
        if served is None:
            return []
        jobs = [entry[3] for entry in served.waiting.in_order()]
        for job in jobs:
            self._unqueue(job)
        self._reconnect()
        return jobs

    def submit(self, job: Job, now: float) -> Refusal | None:
        """Take a job, or say at once why not.

        Raises:
            ValueError: the job has more rows than its model takes at once.
        """
        model = self._models.get(job.model)
        if model is None:
            return Refusal("unknown", RETRY_S)
        size = job.size
        if not 1 <= size <= model.spec.max_batch:
            raise ValueError(
                f"a job of {job.model} has {size} rows, the model takes 1 to "
                f"{model.spec.max_batch} at once; split it"
            )
        model.arrived += size
        self._has_news = True
        if self._entries:
            refusal = self._crowded(job, model, now)
            if refusal is not None:
                return refusal
        fastest = model.fastest
        if fastest and now + fastest[size] > job.deadline_s:
            return Refusal("late", fastest[size])
        self._queue(model, job)
        return None

    def cancel(self, job: Job, now: float) -> bool:  # noqa: ARG002
        """Forget a job that waits; False: it runs already or is not here."""
        if job not in self._entries:
            return False
        self._unqueue(job)
        return True

    def finish(self, batch: Batch, now: float) -> None:
        """A batch is computed; its device is idle again and its cost is learnt."""
        worker = self._workers.get(batch.device)
        if worker is None or worker.batch is not batch:
            return  # its device was dropped meanwhile; its jobs run elsewhere
        worker.batch = None
        worker.seen_s = now
        worker.until_s = now
        group = worker.group
        key = batch.model
        factor = self.costs.observe(
            key, group.kind, batch.size, now - batch.started_s, batch.device
        )
        model = self._models.get(key)
        if worker.is_retired:
            self._forget(worker)
            return
        if self._regroup(worker, factor):
            group = worker.group
        elif model is not None and model.unknown:
            for pair in model.unknown:
                if pair.group is group:
                    pair.is_probing = False
                    self._reconnect()
                    break
        group.idle.append(worker)
        self._num_idle += 1

    # What to do.

    def dispatch(self, now: float) -> Sequence[Batch]:
        """What to start now; to be asked after every other call and at `next_event`."""
        if not self._num_idle or not self._busy:
            return ()
        started: list[Batch] = []
        while self._num_idle and self._busy:
            batch = self._next(now)
            if batch is None:
                break
            started.append(batch)
        return started

    def expire(self, now: float) -> list[Job]:
        """Take out the waiting jobs that can no longer make their deadline."""
        late = []
        heap, jobs = self._latest, self._jobs
        while heap and (heap[0][0] <= now or heap[0][1] not in jobs):
            job = jobs.get(heappop(heap)[1])
            if job is not None:
                self._unqueue(job)
                late.append(job)
        if self._is_stale or (self._has_news and now >= self._planned_s + self.replan_s):
            self.replan(now)
        return late

    def next_event(self, now: float) -> float:
        """When to ask `dispatch` and `expire` again if nothing happens before; may be inf."""
        heap, jobs = self._latest, self._jobs
        while heap and heap[0][1] not in jobs:
            heappop(heap)
        soonest = heap[0][0] if heap else inf
        if self._is_stale:
            return now
        if self._has_news:
            return min(soonest, max(now, self._planned_s + self.replan_s))
        return soonest

    def queue_delay_s(self, now: float) -> float:
        """How long the oldest waiting job waits; 0 when none does."""
        return max(
            (
                now - min(lane.entries[0][3].arrived_s for lane in model.waiting.lanes.values())
                for model in self._busy.values()
            ),
            default=0.0,
        )

    def replan(self, now: float) -> None:
        """Renew the plan from the costs seen and the mix that arrived: milliseconds.

        `expire` does it when it is due, so that no request pays for it.
        """
        for worker in list(self._workers.values()):
            factor = self.costs.factor(worker.device.id)
            if worker.batch is None and factor > 1.0 and now - worker.seen_s > DOUBT_S:
                worker.seen_s = now
                self._regroup(worker, self.costs.doubt(worker.device.id))
        models = list(self._models.values())
        groups = list(self._groups.values())
        for model in models:
            connect(model, groups, self.costs)
        remember(models, now - self._planned_s)
        self._planned_s = now
        self._has_news = False
        total = sum(model.weight for model in models)
        mix = {model.spec.key: model.weight / total for model in models} if total else {}
        moved = sum(abs(share - self._mix.get(key, 0.0)) for key, share in mix.items())
        if self._is_stale or moved > MIX_MOVED or now - self._spread_s > MEMORY_S:
            self._is_stale = False
            self._mix = mix
            self._spread_s = now
            spread(models, groups)

    # The queue.

    def _queue(self, model: Served, job: Job) -> None:
        due = job.arrived_s + model.spec.slo_s
        deadline = job.deadline_s
        number = next(self._numbers)
        entry = (-job.priority, due if due < deadline else deadline, number, job)
        model.waiting.add(entry)
        self._busy[model.spec.key] = model
        self._entries[job] = (model, entry)
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

    def _unqueue(self, job: Job) -> None:
        model, entry = self._entries[job]
        model.waiting.remove(entry)
        self._count_out(model, entry)

    def _count_out(self, model: Served, entry: Entry) -> None:
        job = entry[3]
        del self._entries[job]
        del self._jobs[entry[2]]
        tenants = self._tenants
        left = tenants[job.tenant] - 1
        if left:
            tenants[job.tenant] = left
        else:
            del tenants[job.tenant]
        if not model.waiting.count:
            self._busy.pop(model.spec.key, None)

    def _crowded(self, job: Job, model: Served, now: float) -> Refusal | None:
        """Why not to queue a job behind those that wait."""
        tenants = self._tenants
        mine = tenants.get(job.tenant, 0)
        num_tenants = len(tenants) + (not mine)
        has_share = mine * num_tenants >= self.max_queue
        waiting = len(self._entries)
        if waiting >= self.max_queue and (
            has_share or num_tenants == 1 or waiting >= self.max_queue * (1 + 1 / RESERVE)
        ):
            return Refusal("full", self._retry_s(model, job, now))
        if has_share and num_tenants > 1:
            return Refusal("tenant", self._retry_s(model, job, now))
        if not self._num_idle and job.deadline_s < inf:
            # Most often there is time even if all that waits went first.
            left = job.deadline_s - now
            busy = self._busy.values()
            for pair in model.good:
                group = pair.group
                wait_s = group.ready_s(now) + pair.seconds[job.size] * group.scale
                if wait_s + group.backlog_s(busy) <= left:
                    return None
            late_s = self._wait_s(model, job, now) - left
            if late_s > 0.0:
                return Refusal("late", late_s)
        return None

    def _retry_s(self, model: Served, job: Job, now: float) -> float:
        wait_s = self._wait_s(model, job, now)
        return min(max(wait_s / 2, 0.001), 10 * RETRY_S)

    def _wait_s(self, model: Served, job: Job, now: float) -> float:
        """Until a job's answer, if it were queued now and all went by the plan; 0: unknown."""
        due = min(job.arrived_s + model.spec.slo_s, job.deadline_s)
        ahead = [
            (
                other,
                other.waiting.rows_before(
                    job.priority, due, job.tenant if other is model else None
                ),
            )
            for other in self._busy.values()
        ]
        best = inf
        for pair in model.good:
            group = pair.group
            wait_s = group.ready_s(now) + pair.seconds[job.size] * group.scale
            wait_s += sum([rows * group.loads.get(other, 0.0) for other, rows in ahead])
            best = min(best, wait_s)
        return best if best < inf else 0.0

    # Devices.

    def _join(self, worker: Worker) -> None:
        kind = worker.device.kind
        step = slow_step(self.costs.factor(worker.device.id))
        group = self._groups.get((kind, step))
        if group is None:
            group = self._groups[kind, step] = Group(kind, step)
        group.workers.append(worker)
        worker.group = group

    def _leave(self, worker: Worker) -> None:
        group = worker.group
        group.workers.remove(worker)
        if worker in group.idle:
            group.idle.remove(worker)
            self._num_idle -= 1
        if not group.workers:
            del self._groups[group.kind, group.step]

    def _regroup(self, worker: Worker, factor: float) -> bool:
        """Plan a device as slower, or as fast again, if its factor says so clearly."""
        step = slow_step(factor)
        if step == worker.group.step or 2 / 3 < factor / worker.group.scale < 1.5:
            return False
        is_idle = worker in worker.group.idle
        self._leave(worker)
        self._join(worker)
        if is_idle:
            worker.group.idle.append(worker)
            self._num_idle += 1
        self._reconnect()
        return True

    def _forget(self, worker: Worker) -> None:
        del self._workers[worker.device.id]
        self.costs.forget_device(worker.device.id)

    def _reconnect(self) -> None:
        """Devices or models changed: what runs where, at once; the plan, at the next `expire`."""
        groups = list(self._groups.values())
        models = list(self._models.values())
        for model in models:
            connect(model, groups, self.costs)
        if len(models) < 2 or len(groups) < 2:
            spread(models, groups)
        else:
            self._is_stale = True

    # Which next.

    def _next(self, now: float) -> Batch | None:
        """Start the most urgent batch that an idle device should take."""
        choices = []
        for model in self._busy.values():
            if model.unknown:
                for pair in model.unknown:
                    if pair.group.idle and not pair.is_probing:
                        pair.is_probing = True
                        return self._start(model, pair, [model.waiting.head()], now)
            head = None
            for rank, pair in enumerate(model.pairs):
                if pair.group.idle:
                    if head is None:
                        head = model.waiting.head()
                        start = head[1] - model.fastest[1]
                    choices.append(
                        (not pair.is_good, head[0], start, model.number, rank, model, pair)
                    )
        if len(choices) > 1:
            choices.sort()
        for choice in choices:
            model, pair = choice[5:]
            chosen = self._choose(model, pair, now)
            if chosen:
                return self._start(model, pair, chosen, now)
        return None

    def _choose(self, model: Served, pair: Pair, now: float) -> list[Entry] | None:
        """The batch that an idle device should take of a model; None: it had better wait."""
        group = pair.group
        until = inf if pair.is_good else now + group.block_s
        chosen = model.waiting.batch(pair, model.fastest, now, until)
        if not chosen:
            return None
        good = model.good
        if good and (good[0] is not pair or len(good) > 1):
            rows = (
                sum([entry[3].size for entry in chosen]) if len(chosen) > 1 else chosen[0][3].size
            )
            taken = pair.seconds[rows] * group.scale
            if pair.is_good:
                taken /= PATIENCE
            for other in good:
                their = other.group
                other_s = other.seconds[1] * their.scale
                if other_s >= taken or other is pair or their.idle:
                    continue
                other_s += their.ready_s(now)
                if other_s < taken and other_s + their.backlog_s(self._busy.values()) < taken:
                    return None
        return chosen

    def _start(self, model: Served, pair: Pair, chosen: list[Entry], now: float) -> Batch:
        group = pair.group
        worker = group.idle.pop()
        self._num_idle -= 1
        model.waiting.take(chosen)
        rows = 0
        jobs = []
        for entry in chosen:
            self._count_out(model, entry)
            jobs.append(entry[3])
            rows += entry[3].size
        seconds = pair.seconds[rows] * group.scale if pair.seconds else 0.0
        batch = Batch(worker.device.id, model.spec.key, jobs, rows, now, seconds)
        worker.batch = batch
        worker.until_s = now + seconds
        return batch
