"""How long it takes from the command to the first good answer of the readiness endpoint."""

from __future__ import annotations

from typing import Any

from benchmarks.serve.models import build_resnet50, build_resnet50_int8, build_tabular, cached
from benchmarks.serve.study import MODELS, Item, Study, print_table, spread

CORES = (0, 1)
SERVERS = ("deepkits_oip", "raw_asgi", "fastapi", "litserve_fast", "ray_serve_haproxy")
BUILDERS = {
    "tabular": build_tabular,
    "resnet50": build_resnet50,
    "resnet50_int8": build_resnet50_int8,
}
REPEATS, REPEATS_RAY = 10, 3


def _repeats(study: Study, name: str) -> int:
    if study.quick:
        return 1 if "ray" in name else 2
    return min(study.rounds or REPEATS, REPEATS_RAY if "ray" in name else REPEATS)


def _seconds(study: Study) -> float:
    names = [server.name for server in study.servers(SERVERS)]
    one = sum(_repeats(study, name) * (30 if "ray" in name else 3) for name in names)
    built = all((MODELS / f"{name}.onnx").exists() for name in BUILDERS)
    return len(BUILDERS) * one + (0 if built else 100)


def _run(study: Study) -> dict[str, Any]:
    servers = study.servers(SERVERS)
    found: dict[str, Any] = {}
    for model, build in BUILDERS.items():
        path = cached(MODELS, model, build)
        times: dict[str, list[float]] = {server.name: [] for server in servers}
        # The first start fills the page cache.
        for turn in range(max(_repeats(study, server.name) for server in servers) + 1):
            for server in servers:
                if turn <= _repeats(study, server.name):
                    with server.started(path, cores=CORES) as running:
                        times[server.name].append(running.ready_s)
        found[model] = {
            server.name: {"settings": server.settings, "first_s": round(values[0], 3)}
            | {"repeats": len(values) - 1, "ready_s": spread(values[1:], 3)}
            for server in servers
            if (values := times[server.name])
        }
        study.say(
            f"{model}: { ({n: row['ready_s']['median'] for n, row in found[model].items()}) }"
        )
    return {
        "pinning": "none: both cores",
        "rule": "from the start of the command to the first 200 of its readiness endpoint, asked "
        "every 5 ms; files in the page cache",
        "quick": study.quick,
        "models": found,
    }


def _show(found: dict[str, Any]) -> None:
    names = list(next(iter(found["models"].values())))
    rows = [
        [name, *(servers[name]["ready_s"]["median"] for servers in found["models"].values())]
        for name in names
    ]
    print_table("Seconds from the command to ready", ["", *found["models"]], rows)


ITEM = Item(_seconds, _run, _show)
