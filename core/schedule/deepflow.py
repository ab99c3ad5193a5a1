"""DeepFlow's rule: each device what it is comparatively best at, and nothing late that need not be.

A job waits in its model's queue and is bound to a device only when one is idle. An idle device
takes from the models that a plan gives it (a linear program over the mix that arrives, renewed in
the background) the batch whose answer is wanted most urgently; from others only what would be done
sooner that way, and only if its own models' next jobs are not late for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from math import inf

from core.schedule.backlog import Backlog
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
# A good device may be this much slower than waiting for a faster one would be.
PATIENCE = 2.0


class DeepFlow:
    """A `Scheduler` that knows what each device costs."""

    def __init__(
        self,
        costs: CostTable,
        *,
        max_queue: int = 1024,
        replan_s: float = 0.25,
    ) -> None:
        """Schedule by a table, which it keeps up to date.

        Args:
            costs: may lack pairs; they are probed with one job when a device is idle.
            max_queue: jobs that wait at most, over all models.
            replan_s: between two plans at least, unless devices or models change.
        """
        if max_queue < 1:
            raise ValueError(f"max_queue={max_queue} leaves no job room to wait; give 1 or more")
        self.costs = costs
        self.replan_s = replan_s
        self._models: dict[str, Served] = {}
        self._workers: dict[str, Worker] = {}
        self._groups: dict[tuple[str, int], Group] = {}
        self._backlog = Backlog(max_queue)
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
                    self._backlog.add(model, job)
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
            self._backlog.remove(job)
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
        refusal = self._refusal(model, job, now)
        model.arrived += job.size
        self._has_news = True
        if refusal is None:
            self._backlog.add(model, job)
        return refusal

    def refuse(self, job: Job, now: float) -> Refusal | None:
        """Why `submit` would not take a job, which is done with it then; None: it would.

        For callers to whom taking one is dear: a refusal is found at less cost.
        """
        model = self._models.get(job.model)
        if model is None:
            return Refusal("unknown", RETRY_S)
        refusal = self._refusal(model, job, now)
        if refusal is not None:
            model.arrived += job.size
            self._has_news = True
        return refusal

    def _refusal(self, model: Served, job: Job, now: float) -> Refusal | None:
        size = job.size
        if not 1 <= size <= model.spec.max_batch:
            raise ValueError(
                f"a job of {job.model} has {size} rows, the model takes 1 to "
                f"{model.spec.max_batch} at once; split it"
            )
        backlog = self._backlog
        if backlog.entries:
            refusal = backlog.refuse(job, model, now)
            if refusal is not None:
                return refusal
        left = job.deadline_s - now
        if left < inf:
            fastest = model.fastest
            if fastest and now + fastest[size] > job.deadline_s:
                return Refusal("late", fastest[size])
            if not self._num_idle and not backlog.is_surely_within(left, model, job, now):
                late_s = backlog.wait_s(model, job, now) - left
                if late_s > 0.0:
                    return Refusal("late", late_s)
        return None

    def cancel(self, job: Job, now: float) -> bool:  # noqa: ARG002
        """Forget a job that waits; False: it runs already or is not here."""
        if job not in self._backlog.entries:
            return False
        self._backlog.remove(job)
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
        busy = self._backlog.busy
        if not self._num_idle or not busy:
            return ()
        started: list[Batch] = []
        while self._num_idle and busy:
            batch = self._next(now)
            if batch is None:
                break
            started.append(batch)
        return started

    def expire(self, now: float) -> list[Job]:
        """Take out the waiting jobs that can no longer make their deadline."""
        late = self._backlog.pop_late(now)
        if self._is_stale or (self._has_news and now >= self._planned_s + self.replan_s):
            self.replan(now)
        return late

    def next_event(self, now: float) -> float:
        """When to ask `dispatch` and `expire` again if nothing happens before; may be inf."""
        if self._is_stale:
            return now
        soonest = self._backlog.next_late_s()
        if self._has_news:
            soonest = min(soonest, self._planned_s + self.replan_s)
        return max(now, soonest)

    def queue_delay_s(self, now: float) -> float:
        """How long the oldest waiting job waits; 0 when none does."""
        return self._backlog.delay_s(now)

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
        for model in self._backlog.busy.values():
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
                if other_s < taken and other_s + their.backlog_s() < taken:
                    return None
        return chosen

    def _start(self, model: Served, pair: Pair, chosen: list[Entry], now: float) -> Batch:
        group = pair.group
        worker = group.idle.pop()
        self._num_idle -= 1
        jobs = self._backlog.take(model, chosen)
        rows = sum([job.size for job in jobs]) if len(jobs) > 1 else jobs[0].size
        seconds = pair.seconds[rows] * group.scale if pair.seconds else 0.0
        batch = Batch(worker.device.id, model.spec.key, jobs, rows, now, seconds)
        worker.batch = batch
        worker.until_s = now + seconds
        return batch
