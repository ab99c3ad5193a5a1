"""The results as a page for people."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.defect.scratches import STAGES, table_rows
from benchmarks.serve.page import STYLE


def write_page(results: Path) -> Path:
    """Write the page beside the results; parts that were not measured are left out."""
    found = json.loads(results.read_text())
    parts = [make(found[name]) for name, make in PARTS.items() if name in found]
    title = "Eight 4K cameras on one PC"
    page = results.with_suffix(".html")
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1>{''.join(parts)}</html>\n"
    )
    return page


def _where(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    text = (
        f"{machine['processor']}, {machine['num_cores']} cores, Python {machine['python']}, "
        f"{machine['time']}, commit {(machine['git_commit'] or 'none')[:10]}; load average "
        f"{part['load_average']}"
    )
    if part["quick"]:
        text = f"Quick run: the numbers are noise. {text}"
    if not part.get("is_trained", True):
        text += "; the network is untrained: times only"
    return f"<p>{html.escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of texts and numbers; a dash where there is none."""
    lines = [("th", head), *(("td", row) for row in rows)]
    cells = (
        "".join(f"<{tag}>{'–' if one is None else html.escape(str(one))}</{tag}>" for one in line)
        for tag, line in lines
    )
    return f'<div class="wide"><table><tr>{"</tr><tr>".join(cells)}</tr></table></div>'


def _cameras(part: Mapping[str, Any]) -> str:
    rows = []
    for name, row in part["runs"].items():
        p99 = [window["p99"] for window in row["windows"] if window]
        rows.append(
            [
                *(name, row["seconds"], row["asked_fps"], row["inspected_fps"], row["triggers"]),
                *(row["unaccounted"], row["states"].get("UNINSPECTED", 0)),
                *(row["latency_ms"]["p50"], row["latency_ms"]["p99"]),
                f"{min(p99):.1f} to {max(p99):.1f}" if p99 else None,
                *(row["goal"]["p99_ms"], row["cores_used"], row["tiles_per_part"]),
            ]
        )
    columns = (
        "goal", "seconds", "fps asked of each", "inspected", "triggers", "unaccounted",
        "UNINSPECTED", "p50 ms", "p99 ms", "p99 of thirds", "p99 wanted",
        "cores used", "tiles a part",
    )  # fmt: skip
    heading = "8 x 3840 x 2160 mono8 from memory"
    return f"<h2>{heading}</h2>{_where(part)}{table(columns, rows)}"


def _region(part: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            sum(row["states"].values()),
            *(row["latency_ms"][key] for key in ("p50", "p99", "p99.9", "max")),
            row["tiles_per_part"],
            row["states"].get("UNINSPECTED", 0),
        ]
        for name, row in part["runs"].items()
    ]
    columns = ("ledger", "parts", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "tiles", "UNINSPECTED")
    goal, stretch = part["goal"], part["stretch"]
    text = (
        f"<p>Wanted: p50 {goal['p50']:g} and p99.9 {goal['p99.9']:g} ms; stretch "
        f"{stretch['p50']:g} and {stretch['p99.9']:g} ms.</p>"
    )
    heading = "One triggered region of 640 px, frame in memory: trigger to verdict"
    return f"<h2>{heading}</h2>{_where(part)}{text}{table(columns, rows)}"


def _recall(part: Mapping[str, Any]) -> str:
    truth = part["truth"]
    ours = part["line_cpu_s_per_frame"]
    rows = [
        ["every tile", part["brute_force_defects"], truth["brute_force_found"],
         part["brute_force_s"]["median"], round(part["brute_force_s"]["median"] / ours, 1)],
        ["the line", part["line_defects"], truth["line_found"], ours, 1.0],
        *([f"SAHI, {name}", row["objects"], None, row["cpu_s"]["median"],
           round(row["cpu_s"]["median"] / ours, 1)] for name, row in part["sahi"].items()),
    ]  # fmt: skip
    columns = ("", "defects found", "of the true ones", "CPU s per frame", "times the line")
    text = (
        f"<p>{part['frames']} frames with {truth['defects']} defects; of what every tile shows, "
        f"the line keeps {part['kept']} of {part['brute_force_defects']}.</p>"
    )
    return f"<h2>The same detector, other ways</h2>{_where(part)}{text}{table(columns, rows)}"


def _streams(part: Mapping[str, Any]) -> str:
    rows = [
        [name, row["sent"], row["seen"], f"{100 * row['dropped_share']:.1f} %", row["repeated"],
         row["reported"]]
        for name, row in part["runs"].items()
    ]  # fmt: skip
    columns = ("", "sent", "seen", "never seen", "seen twice", "told of")
    heading = "ultralytics' LoadStreams over 8 paced streams of 4K MJPEG"
    return f"<h2>{heading}</h2>{_where(part)}{table(columns, rows)}"


def _scratches(part: Mapping[str, Any]) -> str:
    rejects, pod = part["false_reject"]["all"], part["pod"]
    text = (
        f"<p>Wanted: {part['goal']:.1%} found, stretch {part['stretch']:.1%}, at 1 % of clean "
        f"parts rejected. Rejected at the score {part['threshold']:.3f}, chosen on other clean "
        f"parts: {rejects['rejected']} of {rejects['parts']}, with 95 % certainty at most "
        f"{rejects['upper_95']:.2%}. Stages: a cell on the scratch is flagged; the detector shows "
        "it at any score; at that score; the verdict has it.</p>"
    )
    columns = ("scratches", "number", *STAGES, "verdict, lower bound")
    tables = [table(columns, table_rows(part))]
    for name, curve in pod.items():
        rows = [[one["from"], one["scratches"], one["found"], one["lower_95"]]
                for one in curve["bins"]]  # fmt: skip
        told = ", ".join(f"{key} = {curve[key]:.3g}" for key in ("a90", "a90_95") if key in curve)
        tables.append(f"<h3>By {html.escape(name)}: {told or 'no curve'}</h3>")
        tables.append(table(("from", "scratches", "found", "lower bound"), rows))
    heading = (
        f"Scratches of {part['width_mm']:g} mm at a field of view of {part['fov_mm']:g} mm, "
        "whole 4K parts"
    )
    return f"<h2>{heading}</h2>{_where(part)}{text}{''.join(tables)}"


PARTS = {
    "cameras": _cameras,
    "region": _region,
    "recall": _recall,
    "streams": _streams,
    "scratches": _scratches,
}
