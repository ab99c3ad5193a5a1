"""100,000 requests while models are reloaded, workers are killed and their number changes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.serve.chaos import Plan, run_chaos
from benchmarks.serve.study import Item, Study, print_table, spread

NUM_REQUESTS, NUM_EVENTS = 100_000, 20


def _plan(study: Study) -> Plan:
    number, events = (1500, 2) if study.quick else (NUM_REQUESTS, NUM_EVENTS)
    return Plan(number, events, max(1, events // 5), events, events)


def _seconds(study: Study) -> float:
    plan = _plan(study)
    return plan.requests / 800 + 3.0 * len(plan.events())


def _run(study: Study) -> dict[str, Any]:
    plan = _plan(study)
    outcome = dict(vars(run_chaos(plan)))
    failed, wrong = outcome.pop("failed"), outcome.pop("wrong")
    seconds = {name: outcome.pop(name) for name in ("reload_s", "replace_s")}
    return {
        "plan": asdict(plan),
        "pinning": "none: service, workers and client share both cores",
        "loop": f"closed, {plan.connections} connections; no request is sent twice",
        "failed": len(failed),
        "wrong": len(wrong),
        "failures": [*failed[:10], *wrong[:10]],
        **outcome,
        **{name: spread(values, 3) if values else None for name, values in seconds.items()},
        "quick": study.quick,
    }


def _show(found: dict[str, Any]) -> None:
    keys = [key for key, value in found.items() if isinstance(value, int | float)]
    rows = [[key, found[key]] for key in keys if key not in ("load_average", "quick")]
    rows += [[f"{name}s", number] for name, number in found["events"].items()]
    print_table("Chaos", ("", ""), rows)


ITEM = Item(_seconds, _run, _show)
