"""What is left of the goodput when five times more is asked than can be computed."""

from __future__ import annotations

from typing import Any

from benchmarks.serve.models import build_convolutions, cached
from benchmarks.serve.process import Running
from benchmarks.serve.servers import Server
from benchmarks.serve.study import MODELS, Item, Study, Subject, load, print_table, subject

SLO_MS = 100.0
# What clients tell the service: the rest of the objective is for the way there and back.
DEADLINE_MS = 80
FACTOR = 5.0
SHARES = (0.7, 0.8, 0.9, 0.95, 1.0, 1.1)  # of the closed loop's rate, to find the peak
OVERLOAD_S, STEP_S, AFTER_S = 60.0, 10.0, 10.0
CONNECTIONS, CLOSED_CONNECTIONS = 512, 8
SERVERS = ("deepkits_json", "raw_asgi", "litserve_batching")
# Ours alone computes in a worker of its own; others take what the command line gives them.
WORKER = ("--isolation", "process", "--min-workers", "1", "--max-workers", "1")


def _times(study: Study) -> tuple[float, float, tuple[float, ...]]:
    return (4.0, 2.0, (0.8, 1.0)) if study.quick else (OVERLOAD_S, STEP_S, SHARES)


def _seconds(study: Study) -> float:
    overload, step, shares = _times(study)
    one = (step + 3) * (len(shares) + 1) + overload + AFTER_S + 15
    names = [server.name for server in study.servers(SERVERS)]
    return sum(one * (2 if name.startswith("deepkits") else 1) for name in names)


def _measure(study: Study, model: Subject, server: Server, deadline: bool) -> dict[str, Any]:
    is_ours = server.name.startswith("deepkits")
    arguments = (*WORKER, "--slo-ms", f"{SLO_MS:g}") if is_ours else ()
    requests = model.requests(server)
    if deadline:
        requests = [_with_deadline(request) for request in requests]
    with model.served(server, *arguments) as running:
        return _ladder(study, running, requests)


def _with_deadline(request: bytes) -> bytes:
    line = f"\r\nX-Request-Timeout-Ms: {DEADLINE_MS}".encode()
    head, _, rest = request.partition(b"\r\n")
    return head + line + b"\r\n" + rest


def _ladder(study: Study, running: Running, requests: list[bytes]) -> dict[str, Any]:
    overload_s, step_s, shares = _times(study)
    closed = load(running, requests, seconds=step_s, connections=CLOSED_CONNECTIONS)
    capacity = closed["ok_per_s"]
    common = {"connections": CONNECTIONS, "slo_ms": SLO_MS, "timeout_s": 5.0}
    steps = [
        load(running, requests, rate=share * capacity, seconds=step_s, **common) for share in shares
    ]
    peak = max(step["goodput_per_s"] for step in steps)
    # Counted from the first second on: the beginning of an overload is a part of it.
    over = load(
        running, requests, rate=FACTOR * capacity, seconds=overload_s, warmup_s=0.0,
        timeline=True, **common,
    )  # fmt: skip
    after = load(running, requests, rate=0.5 * capacity, seconds=step_s, warmup_s=1.0, **common)
    refused = over["status"].get("429", 0)
    return {
        "closed_loop_per_s": capacity,
        "peak_goodput_per_s": peak,
        "steps": [
            {key: step[key] for key in ("rate", "goodput_per_s", "latency_ms")} for step in steps
        ],
        "offered_per_s": over["rate"],
        "goodput_per_s": over["goodput_per_s"],
        "goodput_over_peak": round(over["goodput_per_s"] / peak, 4) if peak else None,
        "worst_second_over_peak": _worst(over, peak),
        "good_each_second": [second["good"] for second in over["timeline"]],
        "refused_429_share": round(refused / over["requests"], 4),
        "status": over["status"],
        "latency_of_accepted_ms": over["latency_ms"],
        "client": over["client"],
        "half_load_afterwards": {key: after[key] for key in ("status", "latency_ms")},
    }


def _worst(over: dict[str, Any], peak: float) -> float | None:
    return round(min(second["good"] for second in over["timeline"]) / peak, 4) if peak else None


def _run(study: Study) -> dict[str, Any]:
    model = subject(cached(MODELS, "convolutions", build_convolutions))
    found = {}
    for server in study.servers(SERVERS):
        for deadline in (True, False) if server.name.startswith("deepkits") else (False,):
            name = (
                server.name
                if deadline or "deepkits" not in server.name
                else (f"{server.name}, no deadline given")
            )
            found[name] = {"settings": server.settings} | _measure(study, model, server, deadline)
            study.say(f"{name}: {found[name]['goodput_over_peak']} of the peak")
    overload_s, _, _ = _times(study)
    return {
        "model": "12 convolutions, about 10 ms a row; batches cost as much as their rows",
        "threads": 1,
        "loop": "open, constant arrivals; the closed loop only tells the capacity",
        "slo_ms": SLO_MS,
        "factor": FACTOR,
        "seconds": overload_s,
        "deadline": f"X-Request-Timeout-Ms: {DEADLINE_MS} in ours where not said otherwise",
        "quick": study.quick,
        "servers": found,
    }


def _show(found: dict[str, Any]) -> None:
    rows = [
        [
            name,
            row["peak_goodput_per_s"],
            row["goodput_per_s"],
            row["goodput_over_peak"],
            row["worst_second_over_peak"],
            row["refused_429_share"],
            row["latency_of_accepted_ms"].get("p99"),
        ]
        for name, row in found["servers"].items()
    ]
    columns = ("", "peak/s", "goodput/s", "of peak", "worst second", "429 share", "p99 ms")
    print_table(f"{FACTOR:g} times the capacity for {found['seconds']:g} s", columns, rows)


ITEM = Item(_seconds, _run, _show)
