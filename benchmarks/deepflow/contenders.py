"""The rules that are compared, each with the settings that suit it best.

What suits a rule (AUTO's order of devices, the one device and its batch) is found in the simulator
with the measured costs of the mix, the same for all seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.mixes import Mix
from benchmarks.deepflow.scenes import device_id, scene
from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Scheduler
from core.schedule.rules import DevicePriority, RoundRobin, SingleDevice
from core.schedule.simulate import sustained_rate

Settings = tuple[object, ...]

ANY_BATCH = 1 << 30
BATCHES = (1, 2, 4, 8, 16)
TRIAL_JOBS = 3000
TRIAL_PRECISION = 0.03
# Requests in a batch of AUTO's rule where it is given batches.
AUTO_BATCH = 8


@dataclass(frozen=True)
class Contender:
    """A rule with its settings."""

    name: str
    what: str
    # From the rule's settings and the table that the workers fill while they load.
    make: Callable[[Settings, CostTable], Scheduler]
    # The settings to choose from for a mix.
    settings: Callable[[Mix], Sequence[Settings]] = lambda _mix: ((),)
    # Requests that may run together, under some settings; None: as many as the model takes.
    batch: Callable[[Settings], int | None] = lambda _settings: None
    # Devices all count as of one kind: what each costs is not told.
    is_blind: bool = False


def deepflow(_: Settings, table: CostTable) -> Scheduler:
    """Ours."""
    return DeepFlow(table)


def device_priority(order: Settings, _: CostTable) -> Scheduler:
    """AUTO's rule in an order of kinds."""
    return DevicePriority([str(kind) for kind in order], max_batch=ANY_BATCH)


def round_robin(_: Settings, _table: CostTable) -> Scheduler:
    """The next idle device in turn."""
    return RoundRobin()


def single_device(settings: Settings, _: CostTable) -> Scheduler:
    """One device, a fixed largest batch."""
    return SingleDevice(str(settings[0]), max_batch=ANY_BATCH)


def orders(mix: Mix) -> Sequence[Settings]:
    """All orders of a mix's kinds."""
    return tuple(permutations(mix.counts))


def devices_and_batches(mix: Mix) -> Sequence[Settings]:
    """Each kind's first device, with each batch."""
    firsts = {kind: mix.kinds.index(kind) for kind in mix.counts}
    ids = [device_id(number, kind) for kind, number in firsts.items()]
    return tuple((id_, batch) for id_ in ids for batch in BATCHES)


def one(_: Settings) -> int:
    """No batching."""
    return 1


OURS, AUTO = "DeepFlow", "AUTO's rule"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(OURS, "this project's scheduler", deepflow),
        Contender(
            AUTO,
            "OpenVINO AUTO's: the first idle device of the best order, else one queue; batch 1",
            device_priority, orders, one,
        ),
        Contender("round robin", "the next idle device in turn; batch 1", round_robin, batch=one),
        Contender(
            "best single device", "the best device with its best batch", single_device,
            devices_and_batches, lambda settings: int(str(settings[1])),
        ),
    )
}  # fmt: skip
# What the gain is made of.
ABLATIONS = {
    contender.name: contender
    for contender in (
        Contender(
            "AUTO's rule + batches", f"AUTO's, up to {AUTO_BATCH} waiting requests in one run",
            device_priority, orders, lambda _settings: AUTO_BATCH,
        ),
        Contender(
            "DeepFlow, costs unknown", "deadlines, admission, batches; all devices count as alike",
            deepflow, is_blind=True,
        ),
        Contender("DeepFlow, batch 1", "costs, deadlines, admission; batch 1", deepflow, batch=one),
    )
}  # fmt: skip


@cache
def best_settings(contender: Contender, mix: Mix, costs: Costs) -> Settings:
    """The settings with which a rule sustains the highest rate in the simulator."""
    choices = contender.settings(mix)
    if len(choices) == 1:
        return choices[0]

    def rate(settings: Settings) -> float:
        made = scene(mix, costs, contender.batch(settings))

        def make() -> Scheduler:
            return contender.make(settings, CostTable())

        return sustained_rate(
            make, made, num_jobs=TRIAL_JOBS, precision=TRIAL_PRECISION, seed=1
        ).rate

    return max(choices, key=rate)
