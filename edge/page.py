"""A page of facts and tables: one HTML file without scripts that fetches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from edge.table import printable

GOOD = ("verified", "trusted", "passed")
BAD = ("failed", "not trusted")
WARN = ("built", "contract-only")


class Badge(str):
    """A state."""


class Code(str):
    """A path, hash or command."""


class Number(str):
    """To be set to the right."""


class Bar(str):
    """A number with a bar: `share` of the longest, 1 or more is full."""

    share: float

    def __new__(cls, text: str, share: float) -> Bar:
        """A text cannot be given more in `__init__`."""
        made = super().__new__(cls, text)
        made.share = min(max(float(share), 0.0), 1.0)
        return made


@dataclass(frozen=True)
class Table:
    """Cells are texts; their class says how they are shown."""

    head: tuple[str, ...]
    rows: tuple[Sequence[Any], ...]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()


PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>$title · bundle</title>
<style>
$style</style>
</head>
<body>
<header>
<p class="eyebrow">Deepkits <span>bundle</span></p>
<h1>$title</h1>
<p class="lead">$lead</p>
<nav>$links</nav>
</header>
<main>
$sections
</main>
<footer>
<p>Made by edge.inspect from a bundle whose signatures and hashes it had checked.</p>
</footer>
</body>
</html>
""")


def write_page(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write a page; every text in it is escaped.

    Args:
        path: where to.
        title: of the page.
        lead: one sentence below it.
        sections: in order.
    """
    links = " ".join(f'<a href="#{_id(s)}">{_text(s.title)}</a>' for s in sections)
    content = PAGE.substitute(
        title=_text(title),
        lead=_text(lead),
        links=links,
        sections="\n".join(_section(section) for section in sections),
        style=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
    )
    path.write_text(content, encoding="utf-8")


def _section(section: Section) -> str:
    parts = [f'<section id="{_id(section)}">', f"<h2>{_text(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{_text(section.text)}</p>")
    if section.facts:
        facts = "".join(f"<dt>{_text(n)}</dt><dd>{_content(v)}</dd>" for n, v in section.facts)
        parts.append(f"<dl>{facts}</dl>")
    parts += [part for table in section.tables for part in _table(table)]
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"<h3>{_text(table.title)}</h3>"
    first = table.rows[0] if table.rows else [""] * len(table.head)
    head = "".join(
        f'<th scope="col"{_kind(cell)}>{_text(name)}</th>'
        for name, cell in zip(table.head, first, strict=True)
    )
    rows = "\n".join(
        f"<tr>{''.join(_cell(cell, is_first=at == 0) for at, cell in enumerate(row))}</tr>"
        for row in table.rows
    )
    yield (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _cell(cell: Any, *, is_first: bool) -> str:
    tag = "th" if is_first else "td"
    scope = ' scope="row"' if is_first else ""
    return f"<{tag}{scope}{_kind(cell)}>{_content(cell)}</{tag}>"


def _kind(cell: Any) -> str:
    return ' class="num"' if isinstance(cell, Number) else ""


def _content(cell: Any) -> str:
    text = _text(cell)
    if isinstance(cell, Code):
        return f"<code>{text}</code>"
    if isinstance(cell, Badge):
        kind = (
            "good" if cell in GOOD else "bad" if cell in BAD else "warn" if cell in WARN else "on"
        )
        return f'<span class="badge {kind}">{text}</span>'
    if isinstance(cell, Bar):
        width = f"{100 * cell.share:.1f}%"
        return f'{text}<span class="track"><span class="bar" style="width:{width}"></span></span>'
    return text


def _text(value: Any) -> str:
    return escape(printable(str(value)))


def _id(section: Section) -> str:
    return re.sub(r"[^a-z]+", "-", section.title.lower()).strip("-")
