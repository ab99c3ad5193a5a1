"""`benchmarks/results/deepflow.html`: what the tiers found, drawn and in tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.deepflow import models, plot
from benchmarks.deepflow.contenders import ABLATIONS, AUTO, CONTENDERS, OURS
from benchmarks.deepflow.mixes import SLO_AT_LEAST_S, SLO_TIMES
from benchmarks.deepflow.results import RESULTS, load
from core.train.run import write_atomic

PAGE = RESULTS.with_suffix(".html")
RULES = {name: f"r{number}" for number, name in enumerate(CONTENDERS)}
COLOURS = {name: f"m{number}" for number, name in enumerate(models.MODELS)}


def write_page() -> Path:
    """Write the page from the results.

    Raises:
        FileNotFoundError: there are no results.
    """
    found = load()
    if not found:
        raise FileNotFoundError(
            f"{RESULTS} does not exist; run `python -m benchmarks.deepflow costs` and the tiers"
        )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "signed": _signed, "counted": _counted}
    template = environment.get_template("deepflow.html.j2")
    write_atomic(PAGE, template.render(**_content(found)))
    return PAGE


def _content(found: Mapping[str, Any]) -> dict[str, Any]:
    real, replayed = found.get("real"), found.get("replayed")
    return {
        "found": found,
        "rules": {name: (RULES[name], CONTENDERS[name].what) for name in RULES},
        "ablations": {name: rule.what for name, rule in ABLATIONS.items()},
        "ours": OURS,
        "auto": AUTO,
        "colours": COLOURS,
        "slo_times": SLO_TIMES,
        "slo_at_least_ms": SLO_AT_LEAST_S * 1e3,
        "real_bars": plot.bars(real["mixes"], RULES) if real else None,
        "replayed_bars": plot.bars(replayed["fleets"], RULES) if replayed else None,
        "simulated_bars": _simulated_bars(found),
        "charts": _charts(real["mixes"]) if real else [],
        "multiples": [_multiple(row) for row in real["mixes"]] if real else [],
        "costs": _costs(found["costs"]["rows"]) if "costs" in found else None,
        "kinds": list(models.KINDS),
        "machine": next(iter(found.values())),
        "decision_us": _decision_us(found),
    }


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %".replace("-", "−")


def _counted(kinds: Sequence[str]) -> str:
    """2 × this, that."""
    counts = Counter(kinds)
    return ", ".join(f"{n} × {kind}" if n > 1 else kind for kind, n in counts.items())


def _simulated_bars(found: Mapping[str, Any]) -> Any:
    return plot.bars(found["simulated"]["scenes"], RULES) if "simulated" in found else None


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the mix with the largest gain, and of the one with the most models."""
    usable = [row for row in rows if row.get("chart") and row["gain"] is not None]
    if not usable:
        return []
    best = max(usable, key=lambda row: float(row["gain"]))
    richest = max(usable, key=lambda row: len(row["streams"]))
    chosen = [best] if best is richest else [richest, best]
    return [_chart(row) for row in chosen]


def _chart(row: Mapping[str, Any]) -> dict[str, Any]:
    chart = row["chart"]
    workers = sorted({span[0] for name in (AUTO, OURS) for span in chart[name]["spans"]})
    return {
        "mix": row["mix"],
        "rate": chart["rate"],
        "streams": row["streams"],
        "drawn": [
            {
                "rule": name,
                "goodput": chart[name]["goodput"],
                "svg": plot.gantt(chart, name, workers, COLOURS),
            }
            for name in (AUTO, OURS)
        ],
    }


def _multiple(row: Mapping[str, Any]) -> dict[str, Any]:
    """Goodput and latency of a mix over what is offered."""
    goodput, latency = [], []
    for name, kind in RULES.items():
        runs = row["rules"][name]["runs"]
        goodput.append(plot.Line(name, kind, [(run["rate"], run["goodput"]) for run in runs]))
        points = [
            (run["rate"], max(told))
            for run in runs
            if (
                told := [m["p95_ms"] / m["slo_ms"] for m in run["models"].values() if "p95_ms" in m]
            )
        ]
        if points:
            latency.append(plot.Line(name, kind, points))
    offered = "offered, requests/s"
    return {
        "mix": row["mix"],
        "kinds": row["kinds"],
        "goodput": plot.curves(goodput, row["bound"], (offered, "in time/s")),
        "latency": plot.latencies(latency, (offered, "p95 of the answered ÷ SLO")),
    }


def _costs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per model: milliseconds alone, and per row in the best batch, on each kind."""
    table = []
    for model in models.MODELS:
        cells = {}
        for kind in models.KINDS:
            mine = [row for row in rows if row["model"] == model and row["kind"] == kind]
            if not mine:
                continue
            alone = next(row for row in mine if row["batch"] == 1)
            best = min(mine, key=lambda row: float(row["ms"]) / int(row["batch"]))
            per_row = best["ms"] / best["batch"]
            cells[kind] = {
                "alone": alone["ms"],
                "spread": alone["quartiles_ms"],
                "per_row": per_row,
                "batch": best["batch"],
            }
        least = min((cell["per_row"] for cell in cells.values()), default=0.0)
        table.append({"model": model, "cells": cells, "least": least})
    return table


def _decision_us(found: Mapping[str, Any]) -> float | None:
    if "simulated" not in found:
        return None
    return max(float(row["per_request_us"]["p99"]) for row in found["simulated"]["decisions"])
