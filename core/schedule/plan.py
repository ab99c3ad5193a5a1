"""What the scheduler knows of devices and models, and which of them suit each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, inf, log2

from core.schedule.costs import CostTable
from core.schedule.fairness import Waiting
from core.schedule.job import Batch, Device, Model
from core.schedule.placement import balance, bound

# Of a model's SLO: a batch takes at most this, since a job may wait for one and be in the next.
BATCH_SHARE = 0.65
# Of what the SLO leaves beside a run: so long a device may be busy with another group's model.
BLOCK_SHARE = 0.6
# A larger batch has to save this much of a row's time.
WORTH = 0.01
# A device is planned as a slower kind from half a doubling on; within this it is noise.
SLOW_STEP = 0.5
# Spread as if at this share of the most that the devices can do: where it matters.
PLANNED_LOAD = 0.95
# Of devices in a group from which on one of them is free soon enough for whoever is in a hurry.
FREE_SOON = 3
# What a pair that holds up others costs more in the plan: if it makes them late, or nearly so.
APART, LESS = 3.0, 1.2
ROUNDS = 3
# Pairs dearer than this times the best are used only by the way.
GOOD = 1.05
# And so are those with less than this share of the model, and of the group's time: an idle device
# would take far more of it, and its own models would move to where they are slow.
LEAST_SHARE, LEAST_TIME = 0.08, 0.25
# The mix is of this long, or of this many rows if they took longer.
MEMORY_S = 2.0
MEMORY_ROWS = 1000


class Worker:
    """A device."""

    __slots__ = ("batch", "device", "group", "is_retired", "seen_s", "until_s")

    def __init__(self, device: Device, now: float) -> None:
        self.device = device
        self.group: Group
        self.batch: Batch | None = None
        self.until_s = now  # when its batch should be done
        self.seen_s = now  # when its speed was last seen
        self.is_retired = False


class Group:
    """Devices of one kind that are as fast as each other."""

    __slots__ = ("block_s", "idle", "key", "kind", "loads", "scale", "step", "workers")

    def __init__(self, kind: str, step: int) -> None:
        self.kind = kind
        self.step = step
        self.key = f"{kind}*{step}"
        self.scale: float = 2.0 ** (step * SLOW_STEP)
        self.workers: list[Worker] = []
        self.idle: list[Worker] = []
        # How long it may be busy with something else until its own models' next jobs are late.
        self.block_s = inf
        # By model, of each of its rows that waits: how long the group is busy with its part of it.
        self.loads: dict[Served, float] = {}

    def ready_s(self, now: float) -> float:
        """Until one of them is idle."""
        if self.idle:
            return 0.0
        soonest = inf
        for worker in self.workers:
            left = worker.until_s - now
            # Nobody knows when one that is late comes back: perhaps in as long again.
            left = left if left > 0.0 else -left
            if left < soonest:
                soonest = left
        return soonest

    def backlog_s(self) -> float:
        """How long it needs for its part of what waits."""
        work = 0.0
        for model, load in self.loads.items():
            work += load * model.waiting.rows
        return work


class Pair:
    """A model on a group."""

    __slots__ = ("group", "is_good", "is_probing", "row_s", "rows", "seconds", "share")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.seconds: list[float] = []  # by rows, of the kind; empty: unknown
        self.rows = 1  # in a batch at most
        self.row_s = inf  # device time of a row in such a batch
        self.share = 0.0  # of the model's rows that should come here
        self.is_good = False
        self.is_probing = False

    @property
    def one_s(self) -> float:
        """Duration of one row."""
        return self.seconds[1] * self.group.scale

    def size(self, max_batch: int, slo_s: float, largest: int) -> None:
        """Find the batch that is worth while within the SLO."""
        scale, limit = self.group.scale, BATCH_SHARE * slo_s
        seconds = self.seconds
        best = 1
        for rows in range(2, min(max_batch, 2 * largest) + 1):
            if seconds[rows] * scale > limit:
                break
            # What was never tried is tried: the curve is a guess there.
            if rows > largest or seconds[rows] / rows < (1 - WORTH) * seconds[best] / best:
                best = rows
        self.rows = best
        self.row_s = seconds[best] * scale / best


class Served:
    """A model, its queue and where it can run."""

    __slots__ = (
        "arrived",
        "fastest",
        "good",
        "number",
        "pairs",
        "spec",
        "unknown",
        "waiting",
        "weight",
    )

    def __init__(self, spec: Model, number: int) -> None:
        self.spec = spec
        self.number = number
        self.waiting = Waiting()
        self.pairs: list[Pair] = []  # the fastest first
        self.good: list[Pair] = []  # of them
        self.unknown: list[Pair] = []
        self.fastest: list[float] = []  # seconds by rows at best; empty: unknown
        self.arrived = 0  # rows since the last plan
        self.weight = 0.0  # rows lately, as a part of the mix


def slow_step(factor: float) -> int:
    """Which group of its kind a device with this factor belongs to."""
    return round(log2(factor) / SLOW_STEP)


def connect(model: Served, groups: Iterable[Group], costs: CostTable) -> None:
    """Find the model's pairs, and the batch of each."""
    spec = model.spec
    before = {pair.group: pair for pair in (*model.pairs, *model.unknown)}
    known, unknown = [], []
    # Jobs of a model that took larger ones before may still wait.
    rows = max(spec.max_batch, len(model.fastest) - 1)
    for group in groups:
        if spec.kinds and group.kind not in spec.kinds:
            continue
        pair = before.get(group) or Pair(group)
        seconds = costs.curve(spec.key, group.kind, rows)
        if seconds is None:
            unknown.append(pair)
            continue
        pair.seconds = seconds
        pair.size(spec.max_batch, spec.slo_s, costs.largest(spec.key, group.kind))
        known.append(pair)
    known.sort(key=lambda pair: pair.one_s)
    model.pairs, model.unknown = known, unknown
    model.good = [pair for pair in known if pair.is_good]
    model.fastest = [
        min([pair.seconds[size] * pair.group.scale for pair in known])
        for size in range(rows + 1 if known else 0)
    ]


def remember(models: Sequence[Served], passed_s: float) -> None:
    """Add what arrived since the last plan to the mix, in which what is older counts for less."""
    arrived = sum(model.arrived for model in models)
    # Where little arrives it takes longer to see a mix.
    kept = max(exp(-passed_s / MEMORY_S), 1 - arrived / MEMORY_ROWS)
    for model in models:
        model.weight = kept * model.weight + model.arrived
        model.arrived = 0


def spread(models: Sequence[Served], groups: Sequence[Group]) -> None:
    """Decide which pairs are good, and what share of a model goes where."""
    models = [model for model in models if model.pairs]
    counts = {group.key: float(len(group.workers)) for group in groups}
    for model in models:
        _alone(model)
    if len(models) > 1 and any(len(model.pairs) > 1 for model in models):
        _together(models, counts)
    for group in groups:
        group.block_s = inf
        group.loads = {}
    for model in models:
        model.good = [pair for pair in model.pairs if pair.is_good]
        for pair in model.good:
            group = pair.group
            spare = model.spec.slo_s - pair.one_s
            group.block_s = min(group.block_s, max(0.0, BLOCK_SHARE * spare))
            group.loads[model] = pair.share * pair.row_s / len(group.workers)


def _alone(model: Served) -> None:
    """As if there were no other model: every device helps, as fast as it is."""
    speeds = [len(pair.group.workers) / pair.row_s for pair in model.pairs]
    total = sum(speeds)
    for pair, speed in zip(model.pairs, speeds, strict=True):
        pair.is_good = True
        pair.share = speed / total if total else 0.0


def _together(models: Sequence[Served], counts: dict[str, float]) -> None:
    """Each device what it is comparatively best at: a model that is slow everywhere may get the
    fast device, since it loses most elsewhere.
    """
    costs = {
        (model.spec.key, pair.group.key): pair.row_s
        for model in models
        for pair in model.pairs
        if _fits(model, pair)
    }
    total = sum(model.weight for model in models)
    # Before anything has arrived, and for what comes rarely: as if each model took equal time.
    rates = {
        model.spec.key: max(model.weight, 0.01 * total, 1e-9)
        if total
        else 1.0 / min(pair.row_s for pair in model.pairs)
        for model in models
    }
    for _ in range(ROUNDS):
        most = bound(rates, costs, counts).rate
        scale = PLANNED_LOAD * most / sum(rates.values())
        plan = balance({key: rate * scale for key, rate in rates.items()}, costs, counts)
        for model in models:
            for pair in model.pairs:
                key = (model.spec.key, pair.group.key)
                pair.share = plan.share.get(key, 0.0)
                time = rates[model.spec.key] * scale * pair.share * pair.row_s
                is_part = pair.share >= LEAST_SHARE or time >= LEAST_TIME * counts[key[1]]
                pair.is_good = is_part and plan.dearness.get(key, inf) <= GOOD
        if not _part(models, rates, costs):
            break


def _part(
    models: Sequence[Served], rates: dict[str, float], costs: dict[tuple[str, str], float]
) -> bool:
    """Make pairs dearer that would hold up others on their device; whether there were any.

    A run cannot be interrupted. Rates and costs do not show that a model with long runs makes one
    with a short SLO late, wherever they share a device.
    """
    together: dict[Group, list[tuple[float, Served, Pair]]] = {}
    for model in models:
        for pair in model.pairs:
            if pair.is_good:
                load = rates[model.spec.key] * pair.share * pair.row_s
                together.setdefault(pair.group, []).append((load, model, pair))
    dearer: dict[tuple[str, str], float] = {}
    for group, loads in together.items():
        if len(group.workers) >= FREE_SOON:
            continue
        for long_load, long, pair in loads:
            for short_load, short, other in loads:
                if short is long:
                    continue
                held_up = pair.one_s / max(short.spec.slo_s - other.one_s, 1e-9)
                if held_up > 1.0 and short_load < long_load:
                    dearer[short.spec.key, group.key] = APART
                elif held_up > BLOCK_SHARE:
                    by = APART if held_up > 1.0 else LESS
                    key = (long.spec.key, group.key)
                    dearer[key] = max(by, dearer.get(key, 1.0))
    for pair_key, by in dearer.items():
        costs[pair_key] *= by
    return bool(dearer)


def _fits(model: Served, pair: Pair) -> bool:
    """Fast enough for the SLO; where no pair is, all are."""
    slo_s = model.spec.slo_s
    return pair.one_s <= max(slo_s, model.fastest[1])
