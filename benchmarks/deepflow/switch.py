"""A scheduler whose rule can be changed between runs, so that all rules share the same workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from core.schedule.job import Batch, Device, Job, Model, Refusal, Scheduler
from core.schedule.rules import RoundRobin

ANY_KIND = "any"


class Switch:
    """Passes everything on to the rule in place, devices and models as that rule sees them."""

    def __init__(self) -> None:
        self._rule: Scheduler = RoundRobin()
        self._devices: dict[str, Device] = {}
        self._models: dict[str, Model] = {}
        self._largest: Mapping[str, int] = {}
        self._is_blind = False
        # Called with the clock's time when a device died and its jobs are queued again.
        self.on_drop: Callable[[str, float], None] | None = None
        # Called with what was just started.
        self.on_dispatch: Callable[[Sequence[Batch], float], None] | None = None

    def put(
        self, rule: Scheduler, largest: Mapping[str, int], now: float, *, is_blind: bool = False
    ) -> None:
        """Take a fresh rule; no job may wait or run.

        Args:
            rule: it gets the devices and models that are there.
            largest: rows that one run of a model may have under it; others as they are.
            now: the time.
            is_blind: to this rule all devices are of one kind.
        """
        self._rule, self._largest, self._is_blind = rule, largest, is_blind
        for model in self._models.values():
            rule.set_model(self._seen(model), now)
        for device in self._devices.values():
            rule.add_device(self._disguised(device), now)

    def _seen(self, model: Model) -> Model:
        largest = self._largest.get(model.key, model.max_batch)
        return replace(model, max_batch=min(model.max_batch, largest))

    def _disguised(self, device: Device) -> Device:
        return Device(device.id, ANY_KIND) if self._is_blind else device

    def add_device(self, device: Device, now: float) -> None:
        """See `Scheduler`, as for all below."""
        self._devices[device.id] = device
        self._rule.add_device(self._disguised(device), now)

    def retire_device(self, device_id: str, now: float) -> None:
        """It gets no further batch."""
        self._devices.pop(device_id, None)
        self._rule.retire_device(device_id, now)

    def drop_device(self, device_id: str, now: float) -> list[Job]:
        """It is gone."""
        self._devices.pop(device_id, None)
        jobs = self._rule.drop_device(device_id, now)
        if self.on_drop is not None:
            self.on_drop(device_id, now)
        return jobs

    def set_model(self, model: Model, now: float) -> None:
        """A model is loaded."""
        self._models[model.key] = model
        self._rule.set_model(self._seen(model), now)

    def drop_model(self, key: str, now: float) -> list[Job]:
        """No further job of it."""
        self._models.pop(key, None)
        return self._rule.drop_model(key, now)

    def submit(self, job: Job, now: float) -> Refusal | None:
        """Take a job or say why not."""
        return self._rule.submit(job, now)

    def cancel(self, job: Job, now: float) -> bool:
        """Forget a waiting job."""
        return self._rule.cancel(job, now)

    def dispatch(self, now: float) -> Sequence[Batch]:
        """What to start."""
        batches = self._rule.dispatch(now)
        if self.on_dispatch is not None:
            self.on_dispatch(batches, now)
        return batches

    def finish(self, batch: Batch, now: float) -> None:
        """A batch is computed."""
        self._rule.finish(batch, now)

    def expire(self, now: float) -> list[Job]:
        """Those that are too late."""
        return self._rule.expire(now)

    def next_event(self, now: float) -> float:
        """When to ask again."""
        return self._rule.next_event(now)

    def queue_delay_s(self, now: float) -> float:
        """Of the oldest job."""
        return self._rule.queue_delay_s(now)
