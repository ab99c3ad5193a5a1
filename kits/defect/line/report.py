"""The report of a run: one HTML file without scripts that fetches nothing."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from edge import page as edge_page
from kits.defect.line.report_pictures import (
    heat_map,
    latency_bars,
    picture_uri,
    timeline,
)
from kits.defect.line.verdict import Verdict

if TYPE_CHECKING:
    from kits.defect.line.station import Station

STATES = ("OK", "NG", "UNINSPECTED")
BADGES = {"OK": "good", "NG": "bad", "UNINSPECTED": "warn"}
NUM_SHOWN = 24
PAGE = Template((Path(__file__).with_name("report.html")).read_text(encoding="utf-8"))


def write_report(path: Path, station: Station, summary: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: of the page; pictures of defects are read from `defects` beside it.
        station: after its end.
        summary: as `files.write_files` makes it.
    """
    style = Path(edge_page.__file__).with_name("page.css").read_text(encoding="utf-8")
    recipes = {recipe.product: recipe for recipe in station.recipes}
    product = ", ".join(recipes)
    html = PAGE.substitute(
        style=style,
        title=escape(f"{product}: {summary['parts']} parts"),
        lead=escape(_lead(summary)),
        cards="\n".join(_cards(summary)),
        facts="".join(
            f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
            for name, value in _facts(station, summary).items()
        ),
        alarms=_alarms(station),
        timeline=timeline(station.tally.seconds),
        stages=latency_bars(summary["stages_ms"], summary["latency_ms"]),
        reasons=_reasons(summary) + _uninspected(list(station.tally.uninspected)[-NUM_SHOWN:]),
        maps="\n".join(
            f"<figure>{heat_map(camera)}<figcaption><b>{escape(name)}</b> {_told(camera.states)}"
            f"</figcaption></figure>"
            for name, camera in station.tally.cameras.items()
        ),
        bad="\n".join(_bad(station.output, list(station.tally.bad)[-NUM_SHOWN:])),
        num_bad=summary["states"].get("NG", 0),
        audit=escape(_audit(summary["audit"])),
        entries=summary["ledger_entries"],
    )
    path.write_text(html, encoding="utf-8")


def _lead(summary: Mapping[str, Any]) -> str:
    states = summary["states"]
    if not summary["exit_status"]:
        return "Every part was inspected: each trigger has its verdict, OK or NG, in the ledger."
    return (
        f"{states.get('UNINSPECTED', 0)} parts were not inspected and are to be treated as not "
        f"good: exit status {summary['exit_status']}. Each has its reason in the ledger."
    )


def _cards(summary: Mapping[str, Any]) -> Iterator[str]:
    states, latency = summary["states"], summary["latency_ms"]
    parts = max(1, summary["parts"])
    for state in STATES:
        number = states.get(state, 0)
        yield _card(state, str(number), f"{100 * number / parts:.1f} % of parts", BADGES[state])
    if latency:
        note = f"median {latency['p50']:.1f} ms, longest {latency['max']:.1f} ms"
        yield _card("Trigger to verdict, p99", f"{latency['p99']:.1f} ms", note, "on")
    escapes = summary["audit"]["escapes_per_1000_parts"]
    if escapes:
        note = f"95 %: {_rounded(escapes[1])} to {_rounded(escapes[2])}"
        yield _card("Escapes of the triage per 1000 parts", _rounded(escapes[0]), note, "on")


def _card(title: str, value: str, note: str, kind: str) -> str:
    return (
        f'<div class="card {kind}"><p class="name">{escape(title)}</p>'
        f'<p class="value">{escape(value)}</p><p class="note">{escape(note)}</p></div>'
    )


def _facts(station: Station, summary: Mapping[str, Any]) -> dict[str, object]:
    settings = summary["settings"]
    recipe = station.recipes[0]
    return {
        "Source": settings["source"],
        "Cameras": len(station.recipes),
        "Frames": f"{recipe.width_px} × {recipe.height_px} px, {recipe.mm_per_px:g} mm/px",
        "Pace": f"{settings['fps']:g} per second and camera" if settings["fps"] else "as it comes",
        "Deadline": f"{recipe.deadline_ms:g} ms",
        "Recipe": settings["recipe"],
        "Detector": summary["model"],
        "Flagged cells": _percent(summary["flagged_share"]),
        "Tiles per part": _number(summary["tiles_per_part"]),
        "Triggers": f"from {summary['first_trigger']}",
        "Written": datetime.now(UTC).isoformat(timespec="seconds"),
        "Machine": f"{platform.node()}, {platform.machine()}",
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _rounded(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _alarms(station: Station) -> str:
    told = station.alarms.told
    if not told:
        return "<p>None.</p>"
    rows = "\n".join(
        f'<tr><th scope="row"><span class="badge {"bad" if alarm.is_on else "good"}">'
        f"{'begins' if alarm.is_on else 'ends'}</span></th><td>{escape(alarm.kind)}</td>"
        f"<td>{escape(alarm.subject)}</td><td>{escape(alarm.text)}</td>"
        f'<td class="num">{alarm.trigger or "–"}</td></tr>'
        for alarm in told[:NUM_SHOWN]
    )
    rest = len(told) - NUM_SHOWN
    more = f"<p>and {rest} more, in the ledger.</p>" if rest > 0 else ""
    return _table(("", "Kind", "Of", "What", "Trigger"), rows) + more


def _uninspected(verdicts: list[Verdict]) -> str:
    if not verdicts:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row" class="num">{verdict.trigger}</th><td>{escape(verdict.camera)}</td>'
        f"<td>{escape(verdict.frame or '–')}</td><td>{escape(verdict.reason)}</td></tr>"
        for verdict in verdicts
    )
    return "<h3>The last of them</h3>" + _table(("Trigger", "Camera", "Image", "Reason"), rows)


def _reasons(summary: Mapping[str, Any]) -> str:
    if not summary["reasons"]:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(reason)}</th><td class="num">{number}</td></tr>'
        for reason, number in summary["reasons"].items()
    )
    return "<h3>Why parts are UNINSPECTED</h3>" + _table(("Reason", "Parts"), rows)


def _table(head: tuple[str, ...], rows: str) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _told(states: Mapping[str, int]) -> str:
    return ", ".join(f"{states[state]} {state}" for state in STATES if states.get(state))


def _bad(output: Path, verdicts: list[Verdict]) -> Iterator[str]:
    if not verdicts:
        yield "<p>None.</p>"
    for verdict in reversed(verdicts):
        defects = sorted(verdict.defects, key=lambda one: (not one.breaks, -one.length_mm))
        worst = defects[0]
        uri = picture_uri(output / "defects" / worst.crop) if worst.crop else ""
        image = f'<img src="{uri}" alt="the defect, as it was seen"/>' if uri else ""
        size = f"{worst.length_mm:.2f} × {worst.width_mm:.2f} mm, {worst.area_mm2:.2f} mm²"
        more = f", {len(defects) - 1} more" if len(defects) > 1 else ""
        yield (
            f'<figure class="defect">{image}<figcaption><b>{escape(worst.kind)}</b> {size}{more}'
            f'<span class="badge bad">NG</span><br/>trigger {verdict.trigger}, '
            f"{escape(verdict.camera)}, {escape(verdict.frame)}<br/>"
            f'<span class="why">{escape(worst.breaks)}</span></figcaption></figure>'
        )


def _audit(audit: Mapping[str, Any]) -> str:
    if audit["escapes"] is None:
        return "No block was drawn: set audit_share to estimate what the triage lets pass."
    estimate, low, high = audit["escapes"]
    return (
        f"{audit['blocks']} blocks were looked at by lot, each with probability "
        f"{audit['share']:g}; {audit['escapes_found']} defects were found in them that no flagged "
        f"cell had shown. So the triage let {_rounded(estimate)} pass in {audit['parts']} parts, "
        f"between {_rounded(low)} and {_rounded(high)} with 95 % confidence. "
        f"{audit['lost_blocks']} drawn blocks had to be left out for want of time."
    )
