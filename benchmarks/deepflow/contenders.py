"""The rules that are compared, each as it does best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.mixes import Mix
from core.schedule.costs import CostTable
from core.schedule.job import Scheduler


@dataclass(frozen=True)
class Contender:
    """A rule."""

    name: str
    what: str
    # From the mix, the costs known before, and the table that the workers fill while they load.
    make: Callable[[Mix, Costs, CostTable], Scheduler]


def deepflow(_mix: Mix, _costs: Costs, table: CostTable) -> Scheduler:
    """Ours, as it is."""
    from core.schedule.deepflow import DeepFlow

    return DeepFlow(table)


CONTENDERS = {rule.name: rule for rule in (Contender("deepflow", "ours", deepflow),)}
