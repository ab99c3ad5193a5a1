"""Errors per shape as an inline SVG in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, RIGHT, ROW, TOP = 860, 70, 26, 26
MAX_LABEL, CHARACTER = 34, 7.6  # characters; width of one
EXPONENTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
LOWEST = -6  # decades below the tolerance that are told apart


@dataclass(frozen=True)
class Bar:
    """One shape: for each output its largest error as a multiple of what is allowed."""

    label: str
    marks: tuple[float, ...]
    passed: bool


def plot_bars(bars: Sequence[Bar]) -> Markup:
    """A bar per shape to its worst output, a tick per output, and the line of the tolerance.

    The scale is logarithmic; 1 is the tolerance. A shape without numbers is told as such.
    """
    known = [mark for bar in bars for mark in bar.marks if math.isfinite(mark) and mark > 0]
    high = max([1, *(math.ceil(math.log10(mark) + 0.1) for mark in known)])
    low = min([-1, *(math.floor(math.log10(mark)) for mark in known)])
    low = max(low, LOWEST)
    height = TOP + ROW * len(bars) + 34
    bottom = TOP + ROW * len(bars)

    labels = [_label(bar) for bar in bars]
    left = 16 + CHARACTER * max(map(len, labels), default=0)

    def x(value: float) -> float:
        decades = min(max(math.log10(value) if value > 0 else low, low), high)
        return left + (decades - low) / (high - low) * (WIDTH - left - RIGHT)

    parts = [
        Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, height, "Largest error per shape as a multiple of the tolerance"
        )
    ]
    for decade in range(low, high + 1):
        if decade == 0:
            continue
        place = x(10.0**decade)
        parts.append(_line(place, TOP, place, bottom, "grid"))
        parts.append(_text(place, bottom + 18, _decade(decade), "axis", "middle"))
    limit = x(1)
    for row, (bar, label) in enumerate(zip(bars, labels, strict=True)):
        parts.append(_text(left - 12, TOP + ROW * (row + 0.5) + 4, label, "name", "end"))
        parts += _bar(bar, TOP + ROW * row, left, x)
    parts.append(_line(limit, TOP - 6, limit, bottom + 4, "limit"))
    parts.append(_text(limit, TOP - 12, "tolerance", "limit-word", "middle"))
    parts.append(_text(limit, bottom + 18, "1", "axis", "middle"))
    return Markup("\n").join([*parts, Markup("</svg>")])


def power(value: float) -> Markup:
    """A number with two digits, as 1.2 · 10⁻⁷ where it is small or large."""
    value = float(f"{value:.1e}") if value < 100 else value
    if value == 0 or 0.01 <= value < 1000:
        return Markup("{}").format(f"{value:.2g}" if value < 10 else f"{value:.0f}")
    digits, _, exponent = f"{value:.1e}".partition("e")
    return Markup("{} · {}").format(digits, _decade(int(exponent)))


def _decade(exponent: int) -> str:
    sign = "⁻" if exponent < 0 else ""
    return f"10{sign}" + "".join(EXPONENTS[int(digit)] for digit in str(abs(exponent)))


def printable(text: str) -> str:
    """Control characters, which no page may hold, as question marks."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def _label(bar: Bar) -> str:
    label = printable(bar.label)
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"


def _bar(bar: Bar, top: float, left: float, place: Callable[[float], float]) -> list[Markup]:
    parts = []
    known = [mark for mark in bar.marks if math.isfinite(mark)]
    worst = max(known, default=0.0)
    if worst > 0:
        kind = "bar" if bar.passed else "bar wrong"
        width = max(place(worst) - left, 2)
        parts.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{:.1f}" height="{}" rx="2"/>').format(
                kind, f"{left:.1f}", top + 6, width, ROW - 12
            )
        )
        ticks = [place(mark) for mark in sorted(set(known)) if 0 < mark < worst]
        parts += [_line(tick, top + 6, tick, top + ROW - 6, "tick") for tick in ticks]
    words, kind = "", "word"
    if not bar.passed:
        words, kind = "failed", "word wrong"
    elif worst == 0:
        words = "equal to the last bit"
    parts.append(_text(place(worst) + 8, top + ROW / 2 + 4, words, kind))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, escape(words)
    )
