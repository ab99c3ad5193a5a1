"""Rules to compare with: what today's runtimes do, behind the same protocol.

They know no costs and look at no deadline until it has passed. The queue has no bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

from core.schedule.costs import CostTable
from core.schedule.job import Batch, Device, Job, Model, Refusal


class FirstCome:
    """Jobs in the order they came, each to the first idle device in the order they were added.

    `max_batch` jobs of the oldest one's model may run together, if the model can; runtimes run one.
    """

    def __init__(self, *, max_batch: int = 1) -> None:
        self.max_batch = max_batch
        self._devices: list[Device] = []  # those that take batches, the first choice first
        self._idle: set[str] = set()
        self._running: dict[str, Batch] = {}
        self._models: dict[str, Model] = {}
        self._waiting: dict[Job, None] = {}  # keeps the order, and forgets a job at once
        self._deadlines: list[tuple[float, int, Job]] = []  # heap
        self._numbers = count()

    def add_device(self, device: Device, now: float) -> None:  # noqa: ARG002
        """The last choice."""
        self._devices.append(device)
        self._idle.add(device.id)

    def retire_device(self, device_id: str, now: float) -> None:  # noqa: ARG002
        """It gets no further batch."""
        self._devices = [device for device in self._devices if device.id != device_id]
        self._idle.discard(device_id)

    def drop_device(self, device_id: str, now: float) -> list[Job]:
        """Its jobs start again at the end of the queue, as new ones; a second time they do not."""
        self.retire_device(device_id, now)
        batch = self._running.pop(device_id, None)
        lost = []
        for job in batch.jobs if batch else ():
            job.num_deaths += 1
            if job.num_deaths > 1 or job.model not in self._models:
                lost.append(job)
            else:
                self._queue(job)
        return lost

    def set_model(self, model: Model, now: float) -> None:  # noqa: ARG002
        """It can be asked for."""
        self._models[model.key] = model

    def drop_model(self, key: str, now: float) -> list[Job]:
        """Gives back its waiting jobs."""
        self._models.pop(key, None)
        jobs = [job for job in self._waiting if job.model == key]
        for job in jobs:
            self.cancel(job, now)
        return jobs

    def submit(self, job: Job, now: float) -> Refusal | None:  # noqa: ARG002
        """Takes all it knows."""
        if job.model not in self._models:
            return Refusal("unknown", 1.0)
        self._queue(job)
        return None

    def _queue(self, job: Job) -> None:
        self._waiting[job] = None
        if job.deadline_s < inf:
            heappush(self._deadlines, (job.deadline_s, next(self._numbers), job))

    def cancel(self, job: Job, now: float) -> bool:  # noqa: ARG002
        """Forgets a waiting job."""
        if job not in self._waiting:
            return False
        del self._waiting[job]
        return True

    def dispatch(self, now: float) -> Sequence[Batch]:
        """The oldest job to the first idle device, until there is no such pair."""
        started: list[Batch] = []
        if not self._idle or not self._waiting:
            return started
        done: set[Job] = set()
        for job in list(self._waiting):
            if not self._idle:
                break
            if job in done:
                continue
            device = self._device_for(job)
            if device is None:
                continue
            jobs = self._together(job, self._waiting)
            done.update(jobs)
            started.append(self._start(device, jobs, now))
        return started

    def _device_for(self, job: Job) -> Device | None:
        for device in self._devices:
            if device.id in self._idle and self._has(device, job):
                return device
        return None

    def _has(self, device: Device, job: Job) -> bool:
        kinds = self._models[job.model].kinds
        return not kinds or device.kind in kinds

    def _together(self, first: Job, waiting: Iterable[Job]) -> list[Job]:
        """The job, and others of its model in the order they came."""
        most = min(self.max_batch, self._models[first.model].max_batch)
        jobs, rows = [first], first.size
        if rows < most:
            for job in waiting:
                if job is not first and job.model == first.model:
                    if rows + job.size > most:
                        break
                    jobs.append(job)
                    rows += job.size
        return jobs

    def _start(self, device: Device, jobs: list[Job], now: float) -> Batch:
        for job in jobs:
            self.cancel(job, now)
        rows = sum(job.size for job in jobs)
        batch = Batch(device.id, jobs[0].model, jobs, rows, now, 0.0)
        self._idle.remove(device.id)
        self._running[device.id] = batch
        return batch

    def finish(self, batch: Batch, now: float) -> None:  # noqa: ARG002
        """Its device is idle again."""
        if self._running.get(batch.device) is batch:
            del self._running[batch.device]
            if any(device.id == batch.device for device in self._devices):
                self._idle.add(batch.device)

    def expire(self, now: float) -> list[Job]:
        """Those whose deadline is over."""
        late = []
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            job = heappop(heap)[2]
            if self.cancel(job, now):
                late.append(job)
        return late

    def next_event(self, now: float) -> float:  # noqa: ARG002
        """The next deadline."""
        heap = self._deadlines
        while heap and heap[0][2] not in self._waiting:
            heappop(heap)
        return heap[0][0] if heap else inf

    def queue_delay_s(self, now: float) -> float:
        """Of the oldest job."""
        return max((now - job.arrived_s for job in self._waiting), default=0.0)


class DevicePriority(FirstCome):
    """OpenVINO AUTO with CUMULATIVE_THROUGHPUT and its default policy, DEVICE_PRIORITY.

    A request goes to the first device of the priority list that has a free slot; if none has, into
    one queue that all devices share, and a slot that becomes free takes the oldest request. A
    device that fails is taken off the list, and its requests are scheduled again as if they were
    new. One request is one run. A device here has one slot, as a worker computes one batch at a
    time. AUTO has such a queue for each compiled model and lets models meet in the driver; here
    they meet in the queue.

    Source: openvinotoolkit/openvino src/plugins/auto/src/{schedule,cumulative_schedule}.cpp.
    """

    def __init__(self, kinds: Sequence[str] = (), *, max_batch: int = 1) -> None:
        """Prefer devices in this order of kinds; others come last, as they were added."""
        super().__init__(max_batch=max_batch)
        self._rank = {kind: rank for rank, kind in enumerate(kinds)}

    def add_device(self, device: Device, now: float) -> None:
        """Put it where its kind belongs."""
        super().add_device(device, now)
        self._devices.sort(key=lambda device: self._rank.get(device.kind, len(self._rank)))


class RoundRobin(FirstCome):
    """The next idle device in turn: AUTO's other policy. No device idles while a job waits."""

    def __init__(self, *, max_batch: int = 1) -> None:
        super().__init__(max_batch=max_batch)
        self._turn = 0

    def _device_for(self, job: Job) -> Device | None:
        num = len(self._devices)
        for step in range(num):
            device = self._devices[(self._turn + step) % num]
            if device.id in self._idle and self._has(device, job):
                self._turn = (self._turn + step + 1) % num
                return device
        return None


class Bound(FirstCome):
    """Each job is bound to a device when it comes, and waits for that one."""

    def __init__(self, *, max_batch: int = 1) -> None:
        super().__init__(max_batch=max_batch)
        self._queues: dict[str, dict[Job, None]] = {}
        self._homeless: dict[Job, None] = {}  # no device has its model now
        self._home: dict[Job, str] = {}

    def add_device(self, device: Device, now: float) -> None:
        """Whoever found no device before tries again."""
        super().add_device(device, now)
        self._queues[device.id] = {}
        homeless = list(self._homeless)
        self._homeless.clear()
        for job in homeless:
            self._bind(job)

    def retire_device(self, device_id: str, now: float) -> None:
        """Those that waited for it are bound anew."""
        super().retire_device(device_id, now)
        for job in self._queues.pop(device_id, {}):
            self._home.pop(job, None)
            self._bind(job)

    def _queue(self, job: Job) -> None:
        super()._queue(job)
        self._bind(job)

    def _bind(self, job: Job) -> None:
        device = self._choose([device for device in self._devices if self._has(device, job)], job)
        if device is None:
            self._homeless[job] = None
        else:
            self._queues[device.id][job] = None
            self._home[job] = device.id

    def _choose(self, devices: list[Device], job: Job) -> Device | None:
        raise NotImplementedError

    def cancel(self, job: Job, now: float) -> bool:
        """Forgets a waiting job."""
        if not super().cancel(job, now):
            return False
        self._homeless.pop(job, None)
        home = self._home.pop(job, None)
        if home is not None:
            del self._queues[home][job]
        return True

    def dispatch(self, now: float) -> Sequence[Batch]:
        """Each idle device goes on with its own queue."""
        started = []
        for device in self._devices:
            queue = self._queues[device.id]
            if queue and device.id in self._idle:
                started.append(self._start(device, self._together(next(iter(queue)), queue), now))
        return started


class StrictRoundRobin(Bound):
    """Each device in turn, busy or not."""

    def __init__(self, *, max_batch: int = 1) -> None:
        super().__init__(max_batch=max_batch)
        self._turn = 0

    def _choose(self, devices: list[Device], job: Job) -> Device | None:  # noqa: ARG002
        self._turn += 1
        return devices[self._turn % len(devices)] if devices else None


class SingleDevice(Bound):
    """One device does all; the best one is found by trying each."""

    def __init__(self, device_id: str, *, max_batch: int = 1) -> None:
        super().__init__(max_batch=max_batch)
        self._only = device_id

    def _choose(self, devices: list[Device], job: Job) -> Device | None:  # noqa: ARG002
        return next((device for device in devices if device.id == self._only), None)


class MinimumCompletion(Bound):
    """Each job where it would be done first, by a cost table: the classic for unlike machines."""

    def __init__(self, costs: CostTable) -> None:
        super().__init__()
        self._costs = costs

    def _seconds(self, device: Device, job: Job) -> float:
        seconds = self._costs.seconds(job.model, device.kind, job.size)
        return inf if seconds is None else seconds

    def _choose(self, devices: list[Device], job: Job) -> Device | None:
        def done_s(device: Device) -> float:
            running = self._running.get(device.id)
            queue = [*self._queues[device.id], *(running.jobs if running else ())]
            return sum(self._seconds(device, other) for other in [*queue, job])

        return min(devices, key=done_s, default=None)
