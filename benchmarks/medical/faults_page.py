"""The faults' results as a table for people."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

TITLE = "What readers of DICOM make of faults"
COLOURS = {"right": "#cfe8d5", "refused": "#dfe6ee", "accepted": "#f6e3b4", "wrong": "#f3b8b0"}
MUST = {
    "read": "Everything is known: must be read",
    "refuse": "A place or a density is not known: must be refused",
    "decline": "Not one chest CT of one patient: must be refused",
}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  color: #1c1c1c; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem } p { color: #444 }
table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd;
  vertical-align: top } td small { color: #555; display: block }
.key span { padding: .1rem .5rem; margin-right: .4rem }
"""


def write_page(results: Path) -> Path:
    """Write the page beside the results."""
    found = json.loads(results.read_text())
    key = "".join(
        f'<span style="background:{colour}">{name}</span>' for name, colour in COLOURS.items()
    )
    machine = found["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts = [
        f"<p>{len(found['faults'])} faults, each in {found['num_forms']} series of different form; "
        f"{html.escape(packages)}; {machine['time']}, commit {(machine['git_commit'] or '')[:10]}."
        f'</p><p class="key">{key}</p><p><b>wrong</b>: a volume that is not the patient\'s, and no '
        "error. <b>accepted</b>: placed as the healthy series, though its headers contradict that "
        "or it must not be read as a chest CT.</p>",
        _totals(found),
    ]
    for must, title in MUST.items():
        faults = [fault for fault in found["faults"] if fault["must"] == must]
        if faults:
            parts.append(f"<h2>{title}</h2>{_table(faults, found['readers'])}")
    page = results.with_suffix(".html")
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{TITLE}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{TITLE}</h1>{''.join(parts)}</html>\n"
    )
    return page


def _totals(found: dict[str, Any]) -> str:
    head = "".join(f"<th>{html.escape(reader)}</th>" for reader in found["readers"])
    rows = ""
    for must, row in found["summary"].items():
        cells = "".join(_cell(row[reader], {}) for reader in found["readers"])
        rows += f"<tr><td>{MUST[must]}</td>{cells}</tr>"
    return f"<h2>All</h2><table><tr><th></th>{head}</tr>{rows}</table>"


def _table(faults: list[dict[str, Any]], readers: list[str]) -> str:
    head = "".join(f"<th>{html.escape(reader)}</th>" for reader in readers)
    rows = ""
    for fault in faults:
        cells = "".join(
            _cell(fault["outcomes"][reader], fault["seen"].get(reader, {})) for reader in readers
        )
        name = fault["name"].replace("_", " ")
        rows += f"<tr><td>{name}<small>{html.escape(fault['text'])}</small></td>{cells}</tr>"
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _cell(outcomes: dict[str, int], seen: dict[str, Any]) -> str:
    order = ("wrong", "accepted", "refused", "right")
    worst = next((name for name in order if outcomes.get(name)), "right")
    text = ", ".join(f"{outcomes[name]} {name}" for name in order if outcomes.get(name))
    told = []
    if "wrong_volume" in seen:
        told.append(f"volumes up to {seen['wrong_volume']:+.0%}")
    if "wrong_place" in seen:
        told.append(f"{seen['wrong_place']:.0%} of voxels elsewhere")
    if "wrong_hu" in seen:
        told.append(f"off by {seen['wrong_hu']:.0f} HU")
    detail = f"<small>{', '.join(told)}</small>" if told else ""
    return f'<td style="background:{COLOURS[worst]}">{text}{detail}</td>'
