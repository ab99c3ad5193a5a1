"""How long a request to a small tabular model takes at 1,000 requests per second."""

from __future__ import annotations

from typing import Any

from benchmarks.serve.models import build_tabular, cached
from benchmarks.serve.study import MODELS, Item, Study, load, print_table, spread, subject

RATE = 1000.0
SERVERS = (
    "raw_asgi", "raw_asgi_binary", "deepkits_oip", "deepkits_json", "deepkits_binary",
    "deepkits_logged", "fastapi_tuned", "fastapi", "litserve_default", "litserve_fast",
    "litserve_batching", "ray_serve", "ray_serve_haproxy",
)  # fmt: skip
# Ours and the least that a Python server can do with the same body
ABOVE_RAW = {
    "deepkits_oip": "raw_asgi", "deepkits_logged": "raw_asgi", "deepkits_json": "raw_asgi",
    "deepkits_binary": "raw_asgi_binary",
}  # fmt: skip
ROUNDS, SECONDS, WARMUP_S = 3, 20.0, 3.0


def _plan(study: Study) -> tuple[int, float]:
    return (1, 3.0) if study.quick else (study.rounds or ROUNDS, SECONDS)


def _seconds(study: Study) -> float:
    rounds, seconds = _plan(study)
    names = [server.name for server in study.servers(SERVERS)]
    starts = sum(22 if "ray" in name else 3 for name in names)
    return rounds * (len(names) * (seconds + WARMUP_S + 1) + starts)


def _run(study: Study) -> dict[str, Any]:
    rounds, seconds = _plan(study)
    model = subject(cached(MODELS, "tabular", build_tabular))
    servers = study.servers(SERVERS)
    runs: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
    for turn in range(rounds):
        # In turn, so that all see the same machine.
        for server in servers if turn % 2 == 0 else servers[::-1]:
            with model.served(server) as found:
                run = load(
                    found, model.requests(server), rate=RATE, seconds=seconds, warmup_s=WARMUP_S,
                    timeout_s=5,
                )  # fmt: skip
            runs[server.name].append(run)
            study.say(f"round {turn + 1} {server.name}: {run['latency_ms']} {run['status']}")
    found = {
        "model": "MLP 32-64-64-2, one row a request",
        "threads": 1,
        "loop": "open, constant arrivals",
        "rate": RATE,
        "seconds": seconds,
        "rounds": rounds,
        "quick": study.quick,
        "servers": {server.name: _row(server.settings, runs[server.name]) for server in servers},
    }
    found["p50_above_raw_asgi_ms"] = {
        name: spread([a - b for a, b in zip(_p50s(runs[name]), _p50s(runs[raw]), strict=True)])
        for name, raw in ABOVE_RAW.items()
        if runs.get(name) and runs.get(raw) and all(_p50s(runs[name]) + _p50s(runs[raw]))
    }
    return found


def _p50s(runs: list[dict[str, Any]]) -> list[float]:
    return [run["latency_ms"].get("p50", 0.0) for run in runs]


def _row(settings: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"settings": settings}
    for name in ("p50", "p99", "p99.9"):
        values = [run["latency_ms"][name] for run in runs if run["latency_ms"]]
        found[f"{name}_ms"] = spread(values) if values else None
    found["ok_per_s"] = spread([run["ok_per_s"] for run in runs], 1)
    found["failed"] = sum(run["requests"] - run["ok"] for run in runs)
    found["client_late_p99_ms"] = spread([run["client"]["late_ms"]["p99"] for run in runs])
    found["client_cpu_share"] = spread([run["client"]["cpu_share"] for run in runs], 3)
    found["keeps_up"] = all(
        run["ok"] == run["requests"] and run["ok_per_s"] >= 0.99 * RATE for run in runs
    )
    return found


def _show(found: dict[str, Any]) -> None:
    rows = []
    for name, row in found["servers"].items():
        cells = [row[key] and row[key]["median"] for key in ("p50_ms", "p99_ms", "p99.9_ms")]
        above = found["p50_above_raw_asgi_ms"].get(name)
        rows.append(
            [name, *cells, row["ok_per_s"]["median"], row["failed"], above and above["median"]]
        )
    columns = ("", "p50 ms", "p99 ms", "p99.9 ms", "answers/s", "failed", "p50 above raw")
    print_table("1,000 requests per second, MLP 32-64-64-2", columns, rows)


ITEM = Item(_seconds, _run, _show)
