"""The results as a page for people: curves of latency, and the tables."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

COLOURS = {"deepkits": "#0a58ca", "raw_asgi": "#333333", "fastapi": "#2a9d57",
           "litserve": "#c2570c", "ray_serve": "#9b2ca0"}  # fmt: skip
DASHES = ("-", "--", ":", "-.")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1c1c1c; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
img { max-width: 100% } .wide { overflow-x: auto } p { color: #444 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
"""


def write_page(results: Path) -> Path:
    """Write the page beside the results; parts that were not measured are left out."""
    found = json.loads(results.read_text())
    parts = [
        _latency(found["latency"]) if "latency" in found else "",
        _curves(found["throughput"]) if "throughput" in found else "",
        _overload(found["overload"]) if "overload" in found else "",
        _startup(found["startup"]) if "startup" in found else "",
        _resnet(found["resnet"]) if "resnet" in found else "",
        _chaos(found["chaos"]) if "chaos" in found else "",
        _memory(found["memory"]) if "memory" in found else "",
    ]
    title = "Services under load"
    page = results.with_suffix(".html")
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1>{_quick(found)}{''.join(parts)}</html>\n"
    )
    return page


def _quick(found: Mapping[str, Any]) -> str:
    is_quick = any(part.get("quick") for part in found.values())
    return "<p><strong>Quick run: the numbers are noise.</strong></p>" if is_quick else ""


def _where(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    text = (
        f"{machine['processor']}, {machine['num_cores']} cores, Python {machine['python']}, "
        f"{machine['time']}, commit {(machine['git_commit'] or 'none')[:10]}, "
        f"{part['pinning']}; load average {part['load_average']}"
    )
    return f"<p>{html.escape(text)}</p>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def cells(tag: str, values: Sequence[object]) -> str:
        shown = ("–" if value is None else html.escape(str(value)) for value in values)
        return "<tr>" + "".join(f"<{tag}>{value}</{tag}>" for value in shown) + "</tr>"

    body = "".join(cells("td", row) for row in rows)
    return f'<div class="wide"><table>{cells("th", columns)}{body}</table></div>'


def _colour(name: str) -> str:
    return next((c for key, c in COLOURS.items() if name.startswith(key)), "#888888")


def _dashes(names: Sequence[str]) -> dict[str, str]:
    """Servers of one family share the colour and differ in the line."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(_colour(name), []).append(name)
    return {
        name: DASHES[at % len(DASHES)] for each in families.values() for at, name in enumerate(each)
    }


def _image(figure: Any, words: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def _figure(width: float = 9, height: float = 4.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, which="both")
    return figure, axes


def _latency(part: Mapping[str, Any]) -> str:
    rows = []
    for name, row in part["servers"].items():
        cells = [row[key] and row[key]["median"] for key in ("p50_ms", "p99_ms", "p99.9_ms")]
        above = part["p50_above_raw_asgi_ms"].get(name)
        rows.append([name, *cells, row["failed"], above and above["median"], row["settings"]])
    columns = ("server", "p50 ms", "p99 ms", "p99.9 ms", "failed", "p50 above raw ASGI", "settings")
    heading = f"{part['rate']:g} requests per second: {html.escape(part['model'])}"
    return f"<h2>{heading}</h2>{_where(part)}{_table(columns, rows)}"


def _curves(part: Mapping[str, Any]) -> str:
    figure, axes = _figure()
    dashes = _dashes(list(part["servers"]))
    for name, row in part["servers"].items():
        points = sorted(
            (point["rate"], point["p99_ms"])
            for point in chain.from_iterable(row["points"])
            # Beyond its capacity a server's latency only tells how long one looked.
            if point["p99_ms"] and not point["failed"] and point["ok_per_s"] >= 0.99 * point["rate"]
        )
        if points:
            rates, p99s = zip(*points, strict=True)
            axes.plot(rates, p99s, dashes[name], marker=".", color=_colour(name), label=name)
    for limit in part["ratio"]:
        axes.axhline(float(limit), color="#c00000", lw=0.7)
    axes.set(xscale="log", yscale="log", xlabel="requests per second", ylabel="p99, ms")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    limits = list(part["ratio"])
    rows = [
        [name, *(row["per_s_at_p99_ms"][limit]["median"] for limit in limits)]
        + [(part["ratio"][limit].get(name) or {}).get("median") for limit in limits]
        for name, row in part["servers"].items()
    ]
    columns = ["server", *(f"per s at p99 {limit} ms" for limit in limits)]
    columns += [f"ours over it, {limit} ms" for limit in limits]
    image = _image(figure, "p99 against the rate of requests, each server")
    return (
        f"<h2>Latency against rate</h2>{_where(part)}<p>{html.escape(part['rule'])}.</p>"
        f"{image}{_table(columns, rows)}"
    )


def _overload(part: Mapping[str, Any]) -> str:
    figure, axes = _figure(height=3.4)
    for name, row in part["servers"].items():
        share = [good / row["peak_goodput_per_s"] for good in row["good_each_second"]
                 if row["peak_goodput_per_s"]]  # fmt: skip
        line = "--" if "no deadline" in name else "-"
        axes.plot(share, line, color=_colour(name), label=name)
    axes.set(xlabel="seconds of overload", ylabel="goodput over peak", ylim=(0, None))
    axes.legend(fontsize=8, frameon=False)
    rows = [
        [
            name,
            row["peak_goodput_per_s"],
            row["goodput_over_peak"],
            row["refused_429_share"],
            row["latency_of_accepted_ms"].get("p99"),
        ]
        for name, row in part["servers"].items()
    ]
    columns = ("server", "peak per s", "goodput over peak", "429 share", "p99 of accepted, ms")
    return (
        f"<h2>{part['factor']:g} times more than can be computed</h2>{_where(part)}"
        f"{_image(figure, 'goodput over the peak, second by second')}{_table(columns, rows)}"
    )


def _startup(part: Mapping[str, Any]) -> str:
    names = sorted({name for servers in part["models"].values() for name in servers})
    rows = [
        [name, *(s[name]["ready_s"]["median"] for s in part["models"].values())] for name in names
    ]
    columns = ("server", *part["models"])
    return f"<h2>Seconds from the command to ready</h2>{_where(part)}{_table(columns, rows)}"


def _resnet(part: Mapping[str, Any]) -> str:
    rows = []
    for name, case in part["cases"].items():
        for device, over in case["over_reference"].items():
            last = case["rounds"][-1]
            rows.append([
                f"{name}, device {device}", last["reference_per_s"], last["reference_p99_ms"],
                last[device]["per_s"], last[device]["p99_ms"], over["median"],
                case["over_bare"][device]["median"],
            ])  # fmt: skip
    columns = ("", "raw ASGI per s", "its p99 ms", "ours per s", "p99 ms", "over raw ASGI",
               "over the bare session")  # fmt: skip
    return (
        f"<h2>{html.escape(part['model'])}</h2>{_where(part)}<p>{html.escape(part['rule'])}.</p>"
        f"{_table(columns, rows)}"
    )


def _chaos(part: Mapping[str, Any]) -> str:
    rows = [["requests", part["answered"]], ["failed", part["failed"]], ["wrong", part["wrong"]]]
    rows += [[f"events: {name}", number] for name, number in part["events"].items()]
    rows += [[f"{name}: median, longest", f"{part[name]['median']}, {part[name]['max']}"]
             for name in ("reload_s", "replace_s")]  # fmt: skip
    return f"<h2>Chaos</h2>{_where(part)}{_table(('', ''), rows)}"


def _memory(part: Mapping[str, Any]) -> str:
    rows = []
    for name in ("inline", "in a worker"):
        run = part[name]
        slope = run["server"]["bytes_a_request"]
        rows.append([
            name, run["requests"], run["failed"], run["server"]["rss_mib_after_warm_up"],
            run["server"]["rss_mib_last"], f"{slope['slope']} ({slope['low']} to {slope['high']})",
        ])  # fmt: skip
    columns = ("model", "requests", "failed", "MiB after warm-up", "MiB at the end",
               "bytes a request (95 %)")  # fmt: skip
    return f"<h2>Memory of the server</h2>{_where(part)}{_table(columns, rows)}"
