"""How many requests per second each server answers with p99 within a limit, small tabular model."""

from __future__ import annotations

from typing import Any

from benchmarks.serve.models import build_tabular, cached
from benchmarks.serve.search import Probes
from benchmarks.serve.servers import Server
from benchmarks.serve.study import MODELS, Item, Study, Subject, load, print_table, spread, subject

LIMITS_MS = (5.0, 10.0)
SERVERS = (
    "raw_asgi", "raw_asgi_binary", "deepkits_oip", "deepkits_json", "deepkits_binary",
    "fastapi_tuned", "fastapi", "litserve_default", "litserve_fast", "litserve_batching",
    "ray_serve", "ray_serve_haproxy",
)  # fmt: skip
# All of JSON: what is compared is the server, not the protocol
OURS, LITSERVE, RAY = "deepkits_json", "litserve", "ray_serve"
ROUNDS, STEPS, SECONDS, CLOSED_S = 2, 5, 4.0, 4.0
CONNECTIONS, CLOSED_CONNECTIONS = 256, 32
# A search for the second limit knows most of the way already
LATER_STEPS = 3


def _rounds(study: Study) -> int:
    return 1 if study.quick else study.rounds or ROUNDS


def _steps(study: Study) -> tuple[int, int]:
    return (2, 1) if study.quick else (STEPS, LATER_STEPS)


def _probe_s(study: Study) -> float:
    return 1.5 if study.quick else SECONDS


def _seconds(study: Study) -> float:
    servers = study.servers(SERVERS)
    starts = sum(22 if "ray" in server.name else 3 for server in servers)
    probes = (sum(_steps(study)) + 1) * (_probe_s(study) + 2)
    return _rounds(study) * (len(servers) * probes + starts)


def _search(study: Study, model: Subject, server: Server) -> dict[str, Any]:
    requests = model.requests(server)
    with model.served(server) as running:
        closed = load(running, requests, seconds=CLOSED_S, connections=CLOSED_CONNECTIONS)
        probes = Probes(
            lambda rate: load(
                running,
                requests,
                rate=rate,
                seconds=_probe_s(study),
                connections=CONNECTIONS,
                timeout_s=2,
            )
        )
        found = {}
        for limit, steps in zip(LIMITS_MS, _steps(study), strict=True):
            found[f"{limit:g}"] = probes.search(closed["ok_per_s"], limit, steps)
    return {
        "closed_loop_per_s": closed["ok_per_s"],
        "closed_loop_p99_ms": closed["latency_ms"].get("p99"),
        "per_s_at_p99_ms": found,
        "points": probes.points(),
        "client_cpu_share_max": max(run["client"]["cpu_share"] for run in probes.runs.values()),
    }


def _run(study: Study) -> dict[str, Any]:
    model = subject(cached(MODELS, "tabular", build_tabular))
    servers = study.servers(SERVERS)
    runs: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
    for turn in range(_rounds(study)):
        for server in servers if turn % 2 == 0 else servers[::-1]:
            one = _search(study, model, server)
            runs[server.name].append(one)
            told = ", ".join(f"{rate:.0f}/s at {ms} ms" for ms, rate in
                             one["per_s_at_p99_ms"].items())  # fmt: skip
            study.say(f"round {turn + 1} {server.name}: {told}")
    return {
        "model": "MLP 32-64-64-2, one row a request",
        "threads": 1,
        "loop": "open, constant arrivals; the closed loop of 32 connections only bounds the search",
        "rule": "all answers 200, at least 99 % of the rate answered within the run, and the "
        "median p99 of its three windows within the limit",
        "seconds_a_probe": _probe_s(study),
        "rounds": _rounds(study),
        "quick": study.quick,
        "servers": {server.name: _row(server.settings, runs[server.name]) for server in servers},
        "ratio": {f"{limit:g}": _ratios(runs, f"{limit:g}") for limit in LIMITS_MS},
    }


def _row(settings: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    rates = {
        f"{limit:g}": spread([run["per_s_at_p99_ms"][f"{limit:g}"] for run in runs], 1)
        for limit in LIMITS_MS
    }
    return {
        "settings": settings,
        "per_s_at_p99_ms": rates,
        "closed_loop_per_s": spread([run["closed_loop_per_s"] for run in runs], 1),
        "client_cpu_share_max": max(run["client_cpu_share_max"] for run in runs),
        "points": [run["points"] for run in runs],
    }


def _ratios(runs: dict[str, list[dict[str, Any]]], limit: str) -> dict[str, Any]:
    """Ours over each peer, round by round; and over the best form of a peer."""
    rates = {n: [run["per_s_at_p99_ms"][limit] for run in each] for n, each in runs.items()}
    if OURS not in rates:
        return {}
    found: dict[str, Any] = {}
    for name, theirs in rates.items():
        if name != OURS and all(theirs) and all(rates[OURS]):
            found[name] = spread([a / b for a, b in zip(rates[OURS], theirs, strict=True)], 2)
        elif name != OURS:
            found[name] = None  # one of the two held the limit at no rate in one of the rounds
    for family in (LITSERVE, RAY):
        forms = [values for name, values in rates.items() if name.startswith(family)]
        best = [max(values) for values in zip(*forms, strict=True)]
        if best and all(best) and all(rates[OURS]):
            found[f"{family}, its best"] = spread(
                [a / b for a, b in zip(rates[OURS], best, strict=True)], 2
            )
    return found


def _show(found: dict[str, Any]) -> None:
    limits = [f"{limit:g}" for limit in LIMITS_MS]
    rows = []
    for name, row in found["servers"].items():
        ratios = [found["ratio"][limit].get(name) for limit in limits]
        rows.append(
            [
                name,
                row["closed_loop_per_s"]["median"],
                *(row["per_s_at_p99_ms"][limit]["median"] for limit in limits),
                *(ratio and ratio["median"] for ratio in ratios),
            ]
        )
    columns = ["", "closed loop/s"] + [f"p99 {limit} ms" for limit in limits]
    columns += [f"ours over it, {limit} ms" for limit in limits]
    print_table(f"Requests per second at equal p99; ours is {OURS}", columns, rows)


ITEM = Item(_seconds, _run, _show)
