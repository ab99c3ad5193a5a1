"""The results as a page for people."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.medical.precision import rows as rows_of_pairs

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1c1c1c; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
img { max-width: 100% } .wide { overflow-x: auto } p { color: #444 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
"""
OURS, PEER = "#0a58ca", "#8a8f98"
STEPS = {
    "start": "Python and its packages",
    "opening": "opening the bundle",
    "reading": "reading DICOM",
    "lungs": "lung box",
    "coarse": "coarse look",
    "candidates": "candidates",
    "fine": "crops",
    "measuring": "sizes, categories",
    "writing": "SEG, SR, key images, PDF",
}


def write_page(results: Path) -> Path:
    """Write the page beside the results; parts that were not measured are left out."""
    found = json.loads(results.read_text())
    parts = [
        _report(found["report"]) if "report" in found else "",
        _same_weights(found["peers"]) if "peers" in found else "",
        _exactness(found["exactness"]) if "exactness" in found else "",
        _precision(found["precision"]) if "precision" in found else "",
        _resampling(found["peers"]) if "peers" in found else "",
        _choices(found["choices"]) if "choices" in found else "",
    ]
    title = "Lung nodules on two cores"
    page = results.with_suffix(".html")
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>A simulated scan (phantom); research use only.</p>"
        f"{_quick(found)}{''.join(parts)}</html>\n",
        encoding="utf-8",
    )
    return page


def _quick(found: Mapping[str, Any]) -> str:
    is_quick = any(part.get("quick") for part in found.values())
    return "<p><strong>Quick run: the numbers are noise.</strong></p>" if is_quick else ""


def _where(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    text = (
        f"{machine['processor']}, {part['threads']} of {machine['num_cores']} cores, "
        f"{machine['time']}, commit {(machine['git_commit'] or 'none')[:10]}, "
        f"load average {part['load_average']}, rounds {part['rounds']}"
    )
    return f"<p>{html.escape(text)}</p>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def cells(tag: str, values: Sequence[object]) -> str:
        shown = ("–" if value is None else html.escape(str(value)) for value in values)
        return "<tr>" + "".join(f"<{tag}>{value}</{tag}>" for value in shown) + "</tr>"

    body = "".join(cells("td", row) for row in rows)
    return f'<div class="wide"><table>{cells("th", columns)}{body}</table></div>'


def _between(row: Mapping[str, float], digits: int = 1) -> str:
    low, middle, high = (f"{row[key]:.{digits}f}" for key in ("min", "median", "max"))
    return f"{middle} ({low}–{high})"


def _report(part: Mapping[str, Any]) -> str:
    forms = part["forms"]
    rows: list[list[object]] = [
        [title, *(_between(form[key], digits) for form in forms.values())]
        for title, key, digits in (
            ("seconds", "wall_s", 1),
            ("CPU seconds", "cpu_s", 1),
            ("resident memory, MiB", "rss_mib", 0),
        )
    ]
    rows += [
        [f"of these: {title}", *(_between(form["steps_s"][name], 2) for form in forms.values())]
        for name, title in STEPS.items()
    ]
    rows += [["nodules written", *(form["nodules"] for form in forms.values())]]
    kind = "trained" if part["is_trained"] else "of a few steps, which finds nothing"
    return (
        f"<h2>From DICOM on disk to SEG and SR</h2>{_where(part)}"
        f"<p>One process from its start to its end, files read from the disk; student {kind}. "
        f"Median and range.</p>{_table(('', *forms), rows)}"
    )


def _same_weights(part: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            _between(row["wall_s"]),
            _between(row["cpu_s"]),
            round(row["rss_mib"]["median"]),
            _between(row["times_ours"]),
            _between(row["cpu_times_ours"]),
        ]
        for name, row in part["same_weights"].items()
    ]
    columns = ("", "s", "CPU s", "MiB", "× bf16", "× bf16, CPU")
    scaled = {
        name: row["last"]
        for name, row in part["same_weights"].items()
        if row["last"].get("scale", 1) > 1
    }
    words = "; ".join(
        f"{name}: {last['tiles_run']} of {last['tiles']} tiles" for name, last in scaled.items()
    )
    return (
        f"<h2>The same weights behind other sliding windows</h2>{_where(part)}"
        "<p>From the array in memory to the result, each in a process of its own. Ours gives the "
        "nodules (every voxel: their mask around the lungs), the others the mask of every voxel. "
        f"Run in part, seconds scaled by tiles, memory that of the part: {html.escape(words)}.</p>"
        f"{_bars(part['same_weights'])}{_table(columns, rows)}"
    )


def _bars(rows: Mapping[str, Any]) -> str:
    from matplotlib.figure import Figure

    names = list(rows)[::-1]
    figure = Figure(figsize=(9, 0.42 * len(names) + 0.9))
    axes = figure.add_subplot()
    values = [rows[name]["wall_s"]["median"] for name in names]
    colours = [OURS if name.startswith("deepkits") else PEER for name in names]
    axes.barh(names, values, color=colours)
    axes.set(xscale="log", xlabel="seconds, logarithmic")
    axes.spines[["top", "right"]].set_visible(False)
    for at, value in enumerate(values):
        axes.text(value * 1.06, at, f"{value:.1f}", va="center", fontsize=9)
    axes.set_xlim(right=max(values) * 2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="seconds of each contender" src="data:image/png;base64,{data}">'


def _exactness(part: Mapping[str, Any]) -> str:
    keys = ("exact", "lost", "new", "dice", "least_scan_dice", "least_nodule_dice",
            "score_difference")  # fmt: skip
    columns = ("", "exact ones", "lost", "new", "Dice", "worst scan", "worst nodule", "score ±")
    rows = [[name, *(row[key] for key in keys)] for name, row in part["precisions"].items()]
    kind = "trained" if part["is_trained"] else "of a few steps: no meaning"
    return (
        f"<h2>Beside the exact result</h2>{_where(part)}<p>Every voxel of both scales through the "
        f"same network in float32; student {kind}.</p>{_table(columns, rows)}"
    )


def _precision(part: Mapping[str, Any]) -> str:
    columns = (
        "",
        "Dice",
        "loss, points",
        "95 %",
        "of human",
        "hits kept",
        "of",
        "CPM loss, points",
    )
    kind = "trained" if part["is_trained"] else "of a few steps: no meaning"
    return (
        f"<h2>What fewer bits cost</h2>{_where(part)}<p>{part['scans']} simulated scans; Dice "
        "against the consensus of the other readers where the place is told, hits at 1 false "
        f"positive a scan; student {kind}.</p>{_table(columns, rows_of_pairs(part))}"
    )


def _resampling(part: Mapping[str, Any]) -> str:
    rows = [
        [name, _between(row["wall_s"], 3), row["max_error_hu"]]
        for name, row in part["resampling"].items()
    ]
    columns = ("120 slices to 239", "s", "largest difference to SimpleITK, HU")
    return f"<h2>Thick slices</h2>{_table(columns, rows)}"


def _choices(part: Mapping[str, Any]) -> str:
    tables = []
    for form, questions in part.items():
        if not isinstance(questions, Mapping) or "tiles" not in questions:
            continue
        for question, rows in questions.items():
            body = [
                [name, _between(row["wall_s"], 2), _between(row["cpu_s"], 2), row.get("megavoxels")]
                for name, row in rows.items()
            ]
            tables.append(_table((f"{form}: {question}", "s", "CPU s", "M voxels"), body))
    return f"<h2>How the search is set</h2>{_where(part)}{'<br>'.join(tables)}"
